// The C interface of libov2vss as C++17 classes: header only, owners that move, errors as exceptions.
//
//     ov2vss::Engine engine("bundle");
//     ov2vss::Stream stream(engine, engine.words("road; car"));
//     std::vector<std::uint8_t> labels(height * width);
//     ov2vss::Result result = stream.step(ov2vss::rgb(pixels, width, height), time, labels.data());
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "ov2vss/ov2vss.h"

namespace ov2vss {

// What, where and what to do; `status` is one of ov2vss_status.
class Failure : public std::runtime_error {
public:
    explicit Failure(ov2vss_status status) : std::runtime_error(ov2vss_last_error()), status_(status) {}
    ov2vss_status status() const noexcept { return status_; }

private:
    ov2vss_status status_;
};

namespace detail {

inline void check(ov2vss_status status) {
    if (status != OV2VSS_OK) throw Failure(status);
}

// One counted reference of the C interface.
template <typename Object, void (*Retain)(Object*), void (*Release)(Object*)>
class Reference {
public:
    explicit Reference(Object* object = nullptr) noexcept : object_(object) {}
    Reference(const Reference& other) noexcept : object_(other.object_) { Retain(object_); }
    Reference(Reference&& other) noexcept : object_(other.object_) { other.object_ = nullptr; }
    Reference& operator=(Reference other) noexcept {
        std::swap(object_, other.object_);
        return *this;
    }
    ~Reference() { Release(object_); }
    Object* get() const noexcept { return object_; }

private:
    Object* object_;
};

}  // namespace detail

constexpr double no_time = std::numeric_limits<double>::quiet_NaN();

// Words with their embeddings; copies are the same vocabulary.
class Vocabulary {
public:
    explicit Vocabulary(ov2vss_vocabulary* owned) : reference_(owned) {}

    std::size_t size() const { return ov2vss_vocabulary_count(get()); }
    std::string name(std::size_t index) const { return ov2vss_vocabulary_name(get(), index); }
    int label_bytes() const { return ov2vss_vocabulary_label_bytes(get()); }
    std::vector<std::string> names() const {
        std::vector<std::string> found;
        for (std::size_t i = 0; i < size(); ++i) found.push_back(name(i));
        return found;
    }
    ov2vss_vocabulary* get() const noexcept { return reference_.get(); }

private:
    detail::Reference<ov2vss_vocabulary, ov2vss_vocabulary_retain, ov2vss_vocabulary_release> reference_;
};

struct EngineOptions : ov2vss_engine_options {
    EngineOptions() : ov2vss_engine_options OV2VSS_ENGINE_OPTIONS_INIT {}
};

struct VocabularyOptions : ov2vss_vocabulary_options {
    VocabularyOptions() : ov2vss_vocabulary_options OV2VSS_VOCABULARY_OPTIONS_INIT {}
};

struct StreamOptions : ov2vss_stream_options {
    StreamOptions() : ov2vss_stream_options OV2VSS_STREAM_OPTIONS_INIT {}
};

// A bundle ready to run; copies are the same engine, and any thread may use it.
class Engine {
public:
    explicit Engine(const std::string& bundle, const EngineOptions& options = {}) : reference_(open(bundle, options)) {}

    ov2vss_engine_info info() const {
        ov2vss_engine_info found{};
        found.struct_size = sizeof(found);
        detail::check(ov2vss_engine_get_info(get(), &found));
        return found;
    }
    // The bundle's own words.
    Vocabulary words(const VocabularyOptions& options = {}) const { return made(nullptr, options); }
    // "road; car, automobile", or the name of a list that was added to the bundle.
    Vocabulary words(const std::string& text, const VocabularyOptions& options = {}) const {
        return made(text.c_str(), options);
    }
    Vocabulary words_of_file(const std::string& path, const VocabularyOptions& options = {}) const {
        ov2vss_vocabulary* found = nullptr;
        detail::check(ov2vss_vocabulary_from_file(get(), path.c_str(), &options, &found));
        return Vocabulary(found);
    }
    // Embeddings [names, width] that the caller has.
    Vocabulary words(const std::vector<std::string>& names, const std::vector<float>& embeddings) const {
        std::vector<const char*> pointers;
        for (const std::string& name : names) pointers.push_back(name.c_str());
        ov2vss_vocabulary* found = nullptr;
        detail::check(ov2vss_vocabulary_from_embeddings(get(), pointers.data(), names.size(), embeddings.data(),
                                                        names.empty() ? 0 : embeddings.size() / names.size(), &found));
        return Vocabulary(found);
    }
    ov2vss_engine* get() const noexcept { return reference_.get(); }

private:
    static ov2vss_engine* open(const std::string& bundle, const EngineOptions& options) {
        ov2vss_engine* found = nullptr;
        detail::check(ov2vss_engine_open(bundle.c_str(), &options, &found));
        return found;
    }
    Vocabulary made(const char* text, const VocabularyOptions& options) const {
        ov2vss_vocabulary* found = nullptr;
        detail::check(ov2vss_vocabulary_from_words(get(), text, &options, &found));
        return Vocabulary(found);
    }

    detail::Reference<ov2vss_engine, ov2vss_engine_retain, ov2vss_engine_release> reference_;
};

struct Image : ov2vss_image {
    Image() : ov2vss_image OV2VSS_IMAGE_INIT {}
};

// RGB or BGR pixels, three bytes each; `stride` in bytes, 0 for rows without a space between them.
inline Image rgb(const std::uint8_t* pixels, int width, int height, std::ptrdiff_t stride = 0) {
    Image image;
    image.width = width;
    image.height = height;
    image.planes[0] = pixels;
    image.strides[0] = stride;
    return image;
}
inline Image bgr(const std::uint8_t* pixels, int width, int height, std::ptrdiff_t stride = 0) {
    Image image = rgb(pixels, width, height, stride);
    image.format = OV2VSS_BGR;
    return image;
}

struct Result : ov2vss_result {
    Result() : ov2vss_result{} { struct_size = sizeof(ov2vss_result); }
};

// One video, for one thread at a time.
class Stream {
public:
    explicit Stream(const Engine& engine, const StreamOptions& options = {}) : Stream(engine, nullptr, options) {}
    Stream(const Engine& engine, const Vocabulary& words, const StreamOptions& options = {})
        : Stream(engine, words.get(), options) {}

    void set_words(const Vocabulary& words) { detail::check(ov2vss_stream_set_words(get(), words.get())); }
    void set_first(const Image& frame, double time = no_time) {
        detail::check(ov2vss_stream_set_first(get(), &frame, time));
    }
    void set_last(const Image& frame, double time = no_time) {
        detail::check(ov2vss_stream_set_last(get(), &frame, time));
    }

    // Labels (uint8 up to 254 words, else uint16) and confidence into rows without a space between them; null: not
    // wanted.
    Result step(const Image& frame, double time, void* labels, float* confidence = nullptr) {
        Result result;
        result.labels = labels;
        result.confidence = confidence;
        step(frame, time, result);
        return result;
    }
    void step(const Image& frame, double time, Result& result) {
        detail::check(ov2vss_stream_step(get(), &frame, time, &result));
    }
    void hold(double time, Result& result) { detail::check(ov2vss_stream_hold(get(), time, &result)); }
    void advance(const Image& frame, double time = no_time) {
        detail::check(ov2vss_stream_advance(get(), &frame, time));
    }
    void reset() { detail::check(ov2vss_stream_reset(get())); }
    void restart() { detail::check(ov2vss_stream_restart(get())); }

    std::vector<std::uint8_t> save() {
        void* data = nullptr;
        std::size_t size = 0;
        detail::check(ov2vss_stream_save(get(), &data, &size));
        const std::unique_ptr<void, void (*)(void*)> held(data, ov2vss_free);
        const auto* bytes = static_cast<const std::uint8_t*>(data);
        return {bytes, bytes + size};
    }
    void load(const std::vector<std::uint8_t>& bytes) {
        detail::check(ov2vss_stream_load(get(), bytes.data(), bytes.size()));
    }

    ov2vss_stream* get() const noexcept { return stream_.get(); }

private:
    Stream(const Engine& engine, ov2vss_vocabulary* words, const StreamOptions& options)
        : stream_(nullptr, ov2vss_stream_destroy) {
        ov2vss_stream* made = nullptr;
        detail::check(ov2vss_stream_create(engine.get(), words, &options, &made));
        stream_.reset(made);
    }
    std::unique_ptr<ov2vss_stream, void (*)(ov2vss_stream*)> stream_;
};

}  // namespace ov2vss
