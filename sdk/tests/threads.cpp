// ov2vss_threads FOLDER: eight threads on four streams and one stand-in engine, whose bundle is written into FOLDER.
// ov2vss_threads --bundle BUNDLE MODULES: the same on a real one with OpenVINO.
//
// Two threads take turns with each stream; meanwhile they make words, save and load, and hold references. The labels
// must be those of four streams that ran one after the other. For ThreadSanitizer (the stand-in: OpenVINO's own threads
// are not instrumented) and AddressSanitizer.
#include <dlfcn.h>

#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "handles.h"
#include "stand_in.h"

#if defined(__SANITIZE_ADDRESS__)
// OpenVINO loads a library of TBB with RTLD_DEEPBIND, which AddressSanitizer refuses: the flag is taken off.
extern "C" void* dlopen(const char* file, int mode) {
    using Open = void* (*)(const char*, int);
    static const auto real = reinterpret_cast<Open>(dlsym(RTLD_NEXT, "dlopen"));
    return real(file, mode & ~RTLD_DEEPBIND);
}
#endif

namespace {

void check(ov2vss_status status) {
    if (status != OV2VSS_OK) throw std::runtime_error(ov2vss_last_error());
}

using Bytes = std::vector<std::uint8_t>;

Bytes picture(int stream, int number, int height, int width) {
    Bytes rgb(3 * static_cast<std::size_t>(height) * static_cast<std::size_t>(width));
    for (std::size_t i = 0; i < rgb.size(); ++i)
        rgb[i] = static_cast<std::uint8_t>(
            (i * static_cast<std::size_t>(7 + stream) + static_cast<std::size_t>(number) * 13) >> (stream % 3));
    return rgb;
}

struct Run {
    ov2vss_engine* engine;
    ov2vss_stream* stream = nullptr;
    int number, frames, height = 90, width = 120;
    std::vector<Bytes> labels;

    Run(ov2vss_engine* of, int stream_number, int count) : engine(of), number(stream_number), frames(count) {
        ov2vss_engine_retain(engine);
        ov2vss_stream_options options = OV2VSS_STREAM_OPTIONS_INIT;
        options.distant = number % 3 ? OV2VSS_DISTANT_RESERVOIR : OV2VSS_DISTANT_FIRST;
        options.seed = static_cast<std::uint64_t>(number);
        options.confidence = 1;
        options.top_classes = number == 2 ? 2 : 0;
        options.threads = 2;
        check(ov2vss_stream_create(engine, nullptr, &options, &stream));
    }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;
    ~Run() {
        ov2vss_engine_release(engine);
        ov2vss_stream_destroy(stream);
    }

    // The next frame; every few of them the words change, or the state goes out and comes back.
    void step() {
        const int at = static_cast<int>(labels.size());
        if (at % 4 == 1) {
            ov2vss_engine_retain(engine);
            ov2vss_vocabulary* words = nullptr;
            const std::string text =
                "road; car; sky; tree " + std::to_string(at) + "; lamp " + std::to_string(number % 2);
            check(ov2vss_vocabulary_from_words(engine, text.c_str(), nullptr, &words));
            check(ov2vss_stream_set_words(stream, words));
            ov2vss_vocabulary_release(words);
            ov2vss_engine_release(engine);
        }
        if (at % 5 == 3) {
            void* data = nullptr;
            std::size_t size = 0;
            check(ov2vss_stream_save(stream, &data, &size));
            const ov2vss_status loaded = ov2vss_stream_load(stream, data, size);
            ov2vss_free(data);
            check(loaded);
        }
        const Bytes rgb = picture(number, at, height, width);
        ov2vss_image image = OV2VSS_IMAGE_INIT;
        image.width = width;
        image.height = height;
        image.planes[0] = rgb.data();
        Bytes found(static_cast<std::size_t>(height) * static_cast<std::size_t>(width));
        std::vector<float> sure(found.size());
        ov2vss_result result{};
        result.struct_size = sizeof(result);
        result.labels = found.data();
        result.confidence = sure.data();
        check(ov2vss_stream_step(stream, &image, at / 10.0, &result));
        labels.push_back(std::move(found));
    }
};

}  // namespace

int main(int count, char** arguments) try {
    const bool real = count == 4 && std::string(arguments[1]) == "--bundle";
    if (!real && count != 2) {
        std::fprintf(stderr, "usage: ov2vss_threads FOLDER | --bundle BUNDLE MODULES\n");
        return 2;
    }
    ov2vss::EngineOptions options;
    options.threads = 1;
    ov2vss_engine* engine = nullptr;
    if (real) {
        options.modules = arguments[3];
        engine = new ov2vss_engine(ov2vss::Engine::open(arguments[2], options));
    } else {
        stand_in::write_bundle(arguments[1]);
        options.cache = "";
        engine = new ov2vss_engine(ov2vss::Engine::with_module(arguments[1], options, stand_in::module()));
    }
    const int frames = real ? 6 : 40;
    std::vector<std::vector<Bytes>> alone;
    for (int number = 0; number < 4; ++number) {
        Run run(engine, number, frames);
        while (static_cast<int>(run.labels.size()) < frames) run.step();
        alone.push_back(run.labels);
    }
    std::vector<std::unique_ptr<Run>> runs;
    for (int number = 0; number < 4; ++number) runs.push_back(std::make_unique<Run>(engine, number, frames));
    ov2vss_engine_release(engine);
    std::mutex locks[4];
    std::vector<std::string> failures(8);
    std::vector<std::thread> threads;
    for (std::size_t thread = 0; thread < 8; ++thread)
        threads.emplace_back([&, thread] {
            try {
                Run& run = *runs[thread % 4];
                while (true) {
                    const std::lock_guard<std::mutex> held(locks[thread % 4]);
                    if (static_cast<int>(run.labels.size()) == frames) return;
                    run.step();
                }
            } catch (const std::exception& error) {
                failures[thread] = error.what();
            }
        });
    for (std::thread& thread : threads) thread.join();
    for (const std::string& failure : failures)
        if (!failure.empty()) throw std::runtime_error(failure);
    for (std::size_t number = 0; number < 4; ++number)
        if (runs[number]->labels != alone[number])
            throw std::runtime_error("stream " + std::to_string(number) + " has other labels than alone");
    std::printf("%d frames of 4 streams in 8 threads: the labels of four separate runs\n", frames);
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "ov2vss_threads: %s\n", error.what());
    return 1;
}
