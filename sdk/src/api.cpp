// The C interface: every call is caught, checked, and turned into a status with a message of the calling thread.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "error.h"
#include "handles.h"
#include "kernels.h"
#include "log.h"
#include "ov2vss/ov2vss.h"

namespace ov2vss {

namespace {

thread_local std::string last_error;

template <typename Call>
ov2vss_status guarded(Call&& call) noexcept {
    try {
        try {
            call();
            return OV2VSS_OK;
        } catch (const Error& error) {
            last_error = error.what();
            return error.status();
        } catch (const std::bad_alloc&) {
            last_error = "memory ran out; use fewer streams or a smaller bundle";
            return OV2VSS_ERROR_MEMORY;
        } catch (const std::exception& error) {
            last_error = std::string("this should not happen (") + error.what() + "); report it with what you did";
            return OV2VSS_ERROR_INTERNAL;
        } catch (...) {
            last_error = "this should not happen; report it with what you did";
            return OV2VSS_ERROR_INTERNAL;
        }
    } catch (...) {  // no memory for the message
        return OV2VSS_ERROR_MEMORY;
    }
}

template <typename Pointer>
void need(const Pointer* pointer, const char* name) {
    if (!pointer) throw argument_error(std::string(name) + " is null", "give one");
}

// A struct of the caller as this library knows it: what the caller's header did not have keeps its default.
template <typename Struct>
Struct known(const Struct* given, const char* name) {
    Struct found{};
    if (!given) return found;
    const std::size_t size = given->struct_size;
    if (size < sizeof(std::uint32_t))
        throw argument_error(std::string(name) + ".struct_size is " + std::to_string(size),
                             "set it to sizeof the struct");
    const auto* bytes = reinterpret_cast<const unsigned char*>(given);
    for (std::size_t at = sizeof(Struct); at < size; ++at)
        if (bytes[at])
            throw argument_error(std::string(name) + " has options that this library does not know",
                                 "use a newer library");
    std::memcpy(static_cast<void*>(&found), given, std::min(size, sizeof(Struct)));
    return found;
}

template <typename Struct>
void give_back(const Struct& found, Struct* to) {
    const std::uint32_t size = to->struct_size;
    std::memcpy(static_cast<void*>(to), &found, std::min<std::size_t>(size, sizeof(Struct)));
    to->struct_size = size;
}

std::string text_of(const char* text, const char* otherwise) {
    return text ? text : otherwise;
}

Picture picture_of(const ov2vss_image* frame, std::vector<std::uint8_t>& held) {
    need(frame, "frame");
    return rgb_of(known(frame, "frame"), held);
}

void make_vocabulary(ov2vss_engine* engine, const Entries& entries, const ov2vss_vocabulary_options* options,
                     ov2vss_vocabulary** vocabulary) {
    const ov2vss_vocabulary_options all = known(options, "options");
    if (all.synonyms < OV2VSS_SYNONYMS_BUNDLE || all.synonyms > OV2VSS_SYNONYMS_MAX)
        throw argument_error("synonyms " + std::to_string(all.synonyms), "use one of ov2vss_synonyms");
    *vocabulary = new ov2vss_vocabulary(Vocabulary::make(engine->engine, entries, all));
}

}  // namespace

}  // namespace ov2vss

using namespace ov2vss;

extern "C" {

const char* ov2vss_version(void) {
    return OV2VSS_VERSION;
}

void ov2vss_bundle_formats(int32_t* lowest, int32_t* highest) {
    if (lowest) *lowest = kLowestFormat;
    if (highest) *highest = kHighestFormat;
}

const char* ov2vss_last_error(void) {
    return last_error.c_str();
}

void ov2vss_set_log(ov2vss_log_function function, void* user) {
    set_log(function, user);
}

ov2vss_status ov2vss_engine_open(const char* bundle, const ov2vss_engine_options* options, ov2vss_engine** engine) {
    return guarded([&] {
        need(bundle, "bundle");
        need(engine, "engine");
        const ov2vss_engine_options all = known(options, "options");
        EngineOptions wanted;
        wanted.threads = all.threads;
        wanted.device = all.device;
        wanted.backend = text_of(all.backend, "openvino");
        wanted.precision = text_of(all.precision, "fp32");
        wanted.modules = text_of(all.modules, "");
        wanted.runtime = text_of(all.runtime, "");
        if (all.cache) wanted.cache = all.cache;
        *engine = new ov2vss_engine(Engine::open(bundle, wanted));
    });
}

void ov2vss_engine_retain(ov2vss_engine* engine) {
    if (engine) ++engine->count;
}

void ov2vss_engine_release(ov2vss_engine* engine) {
    if (engine && --engine->count == 0) delete engine;
}

ov2vss_status ov2vss_engine_get_info(const ov2vss_engine* engine, ov2vss_engine_info* info) {
    return guarded([&] {
        need(engine, "engine");
        need(info, "info");
        if (info->struct_size < sizeof(std::uint32_t))
            throw argument_error("info.struct_size is not set", "set it to sizeof the struct");
        const Engine& e = *engine->engine;
        const Manifest& m = e.manifest();
        ov2vss_engine_info found{};
        found.height = m.height;
        found.width = m.width;
        found.gap = m.gap;
        found.references = m.references;
        found.memory = m.state ? m.references * m.gap : 0;
        found.warmup = m.state ? m.state->warmup : 0;
        found.grid_height = e.wiring().grid_height;
        found.grid_width = e.wiring().grid_width;
        found.embed_dim = m.embed_dim;
        found.threads = e.threads();
        found.distant = e.wiring().distant.empty() ? 0 : 1;
        found.cuts = e.cut() ? 1 : 0;
        found.candidates = e.dense() ? 1 : 0;
        found.name = m.name.c_str();
        found.backend = e.backend().c_str();
        found.precision = e.precision().c_str();
        found.runtime = e.runtime().c_str();
        found.unknown_below = static_cast<float>(m.unknown_below);
        give_back(found, info);
    });
}

ov2vss_status ov2vss_vocabulary_from_words(ov2vss_engine* engine, const char* words,
                                           const ov2vss_vocabulary_options* options, ov2vss_vocabulary** vocabulary) {
    return guarded([&] {
        need(engine, "engine");
        need(vocabulary, "vocabulary");
        const Manifest& m = engine->engine->manifest();
        const auto added = std::find_if(m.added.begin(), m.added.end(),
                                        [&](const auto& list) { return words && list.first == words; });
        if (!words)
            make_vocabulary(engine, m.entries, options, vocabulary);
        else if (added != m.added.end())
            make_vocabulary(engine, added->second, options, vocabulary);
        else
            make_vocabulary(engine, parse_words(words, "the words given"), options, vocabulary);
    });
}

ov2vss_status ov2vss_vocabulary_from_file(ov2vss_engine* engine, const char* path,
                                          const ov2vss_vocabulary_options* options, ov2vss_vocabulary** vocabulary) {
    return guarded([&] {
        need(engine, "engine");
        need(path, "path");
        need(vocabulary, "vocabulary");
        make_vocabulary(engine, read_words(path), options, vocabulary);
    });
}

ov2vss_status ov2vss_vocabulary_from_embeddings(ov2vss_engine* engine, const char* const* names, size_t count,
                                                const float* embeddings, size_t width, ov2vss_vocabulary** vocabulary) {
    return guarded([&] {
        need(engine, "engine");
        need(names, "names");
        need(embeddings, "embeddings");
        need(vocabulary, "vocabulary");
        Entries entries;
        for (size_t i = 0; i < count; ++i) {
            need(names[i], "a name");
            entries.push_back({names[i]});
        }
        if (entries.empty() || entries.size() > 65'534)
            throw vocabulary_error(std::to_string(count) + " words", "give 1 to 65534");
        *vocabulary = new ov2vss_vocabulary(Vocabulary::given(engine->engine, std::move(entries), embeddings, width));
    });
}

void ov2vss_vocabulary_retain(ov2vss_vocabulary* vocabulary) {
    if (vocabulary) ++vocabulary->count;
}

void ov2vss_vocabulary_release(ov2vss_vocabulary* vocabulary) {
    if (vocabulary && --vocabulary->count == 0) delete vocabulary;
}

size_t ov2vss_vocabulary_count(const ov2vss_vocabulary* vocabulary) {
    return vocabulary ? vocabulary->words->names.size() : 0;
}

const char* ov2vss_vocabulary_name(const ov2vss_vocabulary* vocabulary, size_t index) {
    return index < ov2vss_vocabulary_count(vocabulary) ? vocabulary->words->names[index].c_str() : nullptr;
}

const float* ov2vss_vocabulary_embeddings(const ov2vss_vocabulary* vocabulary, size_t* rows, size_t* width) {
    if (!vocabulary) return nullptr;
    if (rows) *rows = vocabulary->words->rows();
    if (width) *width = vocabulary->words->width;
    return vocabulary->words->embeddings.data();
}

int32_t ov2vss_vocabulary_label_bytes(const ov2vss_vocabulary* vocabulary) {
    return vocabulary ? vocabulary->words->label_bytes() : 0;
}

ov2vss_status ov2vss_stream_create(ov2vss_engine* engine, ov2vss_vocabulary* vocabulary,
                                   const ov2vss_stream_options* options, ov2vss_stream** stream) {
    return guarded([&] {
        need(engine, "engine");
        need(stream, "stream");
        const ov2vss_stream_options all = known(options, "options");
        auto words =
            vocabulary ? vocabulary->words : Vocabulary::make(engine->engine, engine->engine->manifest().entries, {});
        *stream = new ov2vss_stream(Stream(engine->engine, std::move(words), all));
    });
}

void ov2vss_stream_destroy(ov2vss_stream* stream) {
    delete stream;
}

ov2vss_status ov2vss_stream_set_words(ov2vss_stream* stream, ov2vss_vocabulary* vocabulary) {
    return guarded([&] {
        need(stream, "stream");
        need(vocabulary, "vocabulary");
        stream->stream.set_words(vocabulary->words);
    });
}

ov2vss_status ov2vss_stream_set_first(ov2vss_stream* stream, const ov2vss_image* frame, double time) {
    return guarded([&] {
        need(stream, "stream");
        stream->stream.set_first(picture_of(frame, stream->rgb), time);
    });
}

ov2vss_status ov2vss_stream_set_last(ov2vss_stream* stream, const ov2vss_image* frame, double time) {
    return guarded([&] {
        need(stream, "stream");
        stream->stream.set_last(picture_of(frame, stream->rgb), time);
    });
}

ov2vss_status ov2vss_stream_step(ov2vss_stream* stream, const ov2vss_image* frame, double time, ov2vss_result* result) {
    return guarded([&] {
        need(stream, "stream");
        need(result, "result");
        ov2vss_result all = known(result, "result");
        stream->stream.step(picture_of(frame, stream->rgb), time, all);
        give_back(all, result);
    });
}

ov2vss_status ov2vss_stream_hold(ov2vss_stream* stream, double time, ov2vss_result* result) {
    return guarded([&] {
        need(stream, "stream");
        need(result, "result");
        ov2vss_result all = known(result, "result");
        stream->stream.hold(time, all);
        give_back(all, result);
    });
}

ov2vss_status ov2vss_stream_advance(ov2vss_stream* stream, const ov2vss_image* frame, double time) {
    return guarded([&] {
        need(stream, "stream");
        stream->stream.advance(picture_of(frame, stream->rgb), time);
    });
}

ov2vss_status ov2vss_stream_reset(ov2vss_stream* stream) {
    return guarded([&] {
        need(stream, "stream");
        stream->stream.reset();
    });
}

ov2vss_status ov2vss_stream_restart(ov2vss_stream* stream) {
    return guarded([&] {
        need(stream, "stream");
        stream->stream.restart();
    });
}

ov2vss_status ov2vss_stream_save(ov2vss_stream* stream, void** data, size_t* size) {
    return guarded([&] {
        need(stream, "stream");
        need(data, "data");
        need(size, "size");
        const std::string bytes = stream->stream.save();
        void* memory = std::malloc(bytes.size());
        if (!memory) throw std::bad_alloc();
        std::memcpy(memory, bytes.data(), bytes.size());
        *data = memory;
        *size = bytes.size();
    });
}

ov2vss_status ov2vss_stream_load(ov2vss_stream* stream, const void* data, size_t size) {
    return guarded([&] {
        need(stream, "stream");
        need(data, "data");
        stream->stream.load({static_cast<const char*>(data), size});
    });
}

void ov2vss_free(void* data) {
    std::free(data);
}

ov2vss_status ov2vss_label_map(const float* logits, int32_t classes, int32_t height, int32_t width, void* labels,
                               int32_t label_bytes, int32_t label_height, int32_t label_width, float* confidence,
                               int32_t threads) {
    return guarded([&] {
        need(logits, "logits");
        need(labels, "labels");
        if (classes < 1 || height < 1 || width < 1 || label_height < 1 || label_width < 1)
            throw argument_error("logits or labels are empty", "give sizes of at least 1");
        if ((label_bytes != 1 && label_bytes != 2) || (label_bytes == 1 && classes > 256) || classes > 65536)
            throw argument_error(
                "label_bytes=" + std::to_string(label_bytes) + " for " + std::to_string(classes) + " classes",
                "give 1 up to 256 classes, else 2");
        const int workers = std::max(1, static_cast<int>(threads));
        if (label_bytes == 1)
            make_labels(logits, classes, height, width, static_cast<std::uint8_t*>(labels), confidence, label_height,
                        label_width, workers);
        else
            make_labels(logits, classes, height, width, static_cast<std::uint16_t*>(labels), confidence, label_height,
                        label_width, workers);
    });
}

}  // extern "C"
