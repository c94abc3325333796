// four_threads BUNDLE WIDTH HEIGHT < frames.rgb: four streams in four threads with one engine, which all see the same
// frames; says whether their labels are the same, as they have to be.
#include <cstdio>
#include <iostream>
#include <ov2vss/ov2vss.hpp>
#include <thread>
#include <vector>

int main(int count, char** arguments) try {
    if (count != 4) {
        std::cerr << "usage: four_threads BUNDLE WIDTH HEIGHT < frames.rgb\n";
        return 2;
    }
    const ov2vss::Engine engine(arguments[1]);
    const ov2vss::Vocabulary words = engine.words();
    const int width = std::stoi(arguments[2]), height = std::stoi(arguments[3]);
    const auto pixels = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
    std::vector<std::vector<std::uint8_t>> frames;
    for (std::vector<std::uint8_t> rgb(3 * pixels); std::fread(rgb.data(), 3, pixels, stdin) == pixels;)
        frames.push_back(rgb);

    std::vector<std::vector<std::uint8_t>> labels(4);
    std::vector<std::string> failures(4);
    std::vector<std::thread> threads;
    for (std::size_t number = 0; number < 4; ++number)
        threads.emplace_back([&, number] {
            try {
                ov2vss::Stream stream(engine, words);
                const std::size_t size = pixels * words.label_bytes();
                labels[number].resize(frames.size() * size);
                for (std::size_t i = 0; i < frames.size(); ++i)
                    stream.step(ov2vss::rgb(frames[i].data(), width, height), ov2vss::no_time,
                                labels[number].data() + i * size);
            } catch (const std::exception& error) {
                failures[number] = error.what();
            }
        });
    for (std::thread& thread : threads) thread.join();
    for (const std::string& failure : failures)
        if (!failure.empty()) throw std::runtime_error(failure);
    const bool same = labels[1] == labels[0] && labels[2] == labels[0] && labels[3] == labels[0];
    std::cout << frames.size() << " frames, labels of four threads " << (same ? "are the same" : "DIFFER") << "\n";
    return same ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << "four_threads: " << error.what() << "\n";
    return 1;
}
