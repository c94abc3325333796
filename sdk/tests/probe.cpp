// Parts of the core that the C interface does not show, as functions that Python's ctypes can call.
#include <cstring>
#include <memory>
#include <string>

#include "bundle.h"
#include "picture.h"
#include "random.h"
#include "sha256.h"
#include "tokenizer.h"
#include "vocabulary.h"

#define PROBE extern "C" __attribute__((visibility("default")))

namespace {

thread_local std::string message;

}  // namespace

PROBE const char* probe_error() {
    return message.c_str();
}

PROBE void probe_resize(const std::uint8_t* from, int height, int width, std::ptrdiff_t stride, std::uint8_t* to,
                        int to_height, int to_width) {
    ov2vss::resize({from, height, width, stride}, to, to_height, to_width);
}

// Null with a message where the tokenizer is refused.
PROBE ov2vss::Tokenizer* probe_tokenizer(const char* document, std::size_t size) try {
    return ov2vss::Tokenizer::read({document, size}, "tokenizer.json").release();
} catch (const std::exception& error) {
    message = error.what();
    return nullptr;
}

// Number of ids; as many as fit are written.
PROBE std::int64_t probe_encode(const ov2vss::Tokenizer* tokenizer, const char* text, std::size_t size,
                                std::int64_t* ids, std::size_t capacity) {
    const auto found = tokenizer->encode({text, size});
    std::memcpy(ids, found.data(), std::min(capacity, found.size()) * sizeof(std::int64_t));
    return static_cast<std::int64_t>(found.size());
}

PROBE void probe_close(ov2vss::Tokenizer* tokenizer) {
    delete tokenizer;
}

PROBE void probe_sha256(const void* data, std::size_t size, char* digest) {
    std::memcpy(digest, ov2vss::sha256(data, size).c_str(), 65);
}

// randrange(1), randrange(2), ..., as reservoir sampling draws them.
PROBE void probe_random(std::uint64_t seed, std::uint64_t* drawn, std::size_t count) {
    ov2vss::Random random(seed);
    for (std::size_t i = 0; i < count; ++i) drawn[i] = random.below(i + 1);
}

// Classes of a command line, a line each, synonyms after commas; null with a message where they are refused.
PROBE const char* probe_words(const char* text) try {
    message.clear();
    for (const auto& entry : ov2vss::parse_words(text, "the words given")) {
        for (std::size_t i = 0; i < entry.size(); ++i) message += (i ? "," : "") + entry[i];
        message += "\n";
    }
    return message.c_str();
} catch (const std::exception& error) {
    message = error.what();
    return nullptr;
}

// Whether a manifest is taken; a message where it is not.
PROBE int probe_manifest(const char* document, std::size_t size) try {
    ov2vss::Manifest::parse({document, size}, "manifest.json");
    return 1;
} catch (const std::exception& error) {
    message = error.what();
    return 0;
}
