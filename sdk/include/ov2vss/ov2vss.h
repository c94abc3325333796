/* The C interface of libov2vss: open-vocabulary video semantic segmentation on a bundle, without Python.
 *
 * Three kinds of objects, all of them opaque and counted: an engine (a bundle with its graphs, shared by any number of
 * threads), a vocabulary (words with their embeddings, which never changes), and a stream (one video, used by one
 * thread at a time). A stream keeps its engine and its vocabulary alive.
 *
 * Functions that can fail return a status; ov2vss_last_error() then says what, where, and what to do, for the calling
 * thread. Nothing else crosses this interface: no exception, no C++ type, no allocated memory but where it says so.
 *
 * Every struct of options or results begins with `struct_size`, which the caller sets to sizeof the struct that it was
 * compiled with (the macros OV2VSS_..._INIT do): programs built against an older header go on to work, and fields that
 * they do not know keep their defaults. Zero is the default of every field unless it says otherwise.
 */
#ifndef OV2VSS_H
#define OV2VSS_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define OV2VSS_API
#elif defined(OV2VSS_BUILD)
#define OV2VSS_API __attribute__((visibility("default")))
#else
#define OV2VSS_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- versions, errors, log
 * ------------------------------------------------------------------------------------------- */

/* Version of this header; the library's own is ov2vss_version(). */
#define OV2VSS_VERSION "0.2.0"

/* What a function returns. */
typedef enum ov2vss_status {
    OV2VSS_OK = 0,
    OV2VSS_ERROR_ARGUMENT = 1,   /* the call makes no sense: a null pointer, a size, an option */
    OV2VSS_ERROR_BUNDLE = 2,     /* the bundle is missing, incomplete, altered, or of another format version */
    OV2VSS_ERROR_VOCABULARY = 3, /* the words are empty, repeat a name, or cannot be used */
    OV2VSS_ERROR_ENGINE = 4,     /* the engine is not installed, or does not offer what was asked for, or failed */
    OV2VSS_ERROR_STATE = 5,      /* a saved stream is damaged, or of a stream that was made otherwise */
    OV2VSS_ERROR_MEMORY = 6,     /* memory ran out */
    OV2VSS_ERROR_INTERNAL = 7    /* a bug in the library */
} ov2vss_status;

/* The library's version, as "0.2.0". */
OV2VSS_API const char* ov2vss_version(void);

/* Bundle formats that the library reads: `lowest` and `highest` may be null. */
OV2VSS_API void ov2vss_bundle_formats(int32_t* lowest, int32_t* highest);

/* What went wrong in the last call of this thread that failed: what, where, what to do, in one line of UTF-8. Never
 * null; valid until the thread's next call that fails. */
OV2VSS_API const char* ov2vss_last_error(void);

/* What the library has to tell that is no error. */
typedef enum ov2vss_log_level { OV2VSS_LOG_INFO = 1, OV2VSS_LOG_WARNING = 2 } ov2vss_log_level;
typedef void (*ov2vss_log_function)(ov2vss_log_level level, const char* message, void* user);

/* Sends messages to `function` from now on (null: nowhere, as at first). It may be called from any thread. */
OV2VSS_API void ov2vss_set_log(ov2vss_log_function function, void* user);

/* ---- engine
 * ---------------------------------------------------------------------------------------------------------- */

typedef struct ov2vss_engine ov2vss_engine;

typedef struct ov2vss_engine_options {
    uint32_t struct_size;
    int32_t threads;     /* processor threads; 0: the physical cores that the process may use */
    const char* backend; /* "openvino", "onnxruntime" ("onnxruntime:cuda", "onnxruntime:tensorrt"); null: "openvino" */
    const char* precision; /* "fp32", "bf16", "fp16", "int8" as the bundle and the engine have them; null: "fp32" */
    const char* modules;   /* folder of libov2vss_openvino.so and its like; null: beside the library */
    const char* runtime;   /* file of the engine's own library (libonnxruntime.so...); null: as the loader finds it */
    const char* cache;     /* folder for compiled graphs; null: as the Python runtime has it; "": none */
    int32_t device;        /* number of the GPU */
    int32_t reserved;
} ov2vss_engine_options;
#define OV2VSS_ENGINE_OPTIONS_INIT {(uint32_t)sizeof(ov2vss_engine_options), 0, NULL, NULL, NULL, NULL, NULL, 0, 0}

/* Opens a bundle's folder and loads its graphs. Every file that is used must have the hash that the manifest states.
 * `options` may be null. */
OV2VSS_API ov2vss_status ov2vss_engine_open(const char* bundle, const ov2vss_engine_options* options,
                                            ov2vss_engine** engine);
OV2VSS_API void ov2vss_engine_retain(ov2vss_engine* engine);
/* Gives up one reference; null is ignored. */
OV2VSS_API void ov2vss_engine_release(ov2vss_engine* engine);

typedef struct ov2vss_engine_info {
    uint32_t struct_size;
    int32_t height, width;           /* size that frames are stretched to for the network; any size goes in */
    int32_t gap, references;         /* distance between references in frames, and their number */
    int32_t memory;                  /* frames before a frame that it depends on, beside the distant one */
    int32_t warmup;                  /* runs of the step on a stream's first frame */
    int32_t grid_height, grid_width; /* size of the logits */
    int32_t embed_dim;               /* length of an embedding */
    int32_t threads;
    int32_t distant;    /* 1 where frames are looked at beside a distant frame */
    int32_t cuts;       /* 1 where shot changes can be seen */
    int32_t candidates; /* 1 where candidates can be chosen */
    const char* name;   /* of the bundle; these are valid as long as the engine */
    const char* backend;
    const char* precision;
    const char* runtime; /* name and version of the engine's own library */
    float unknown_below; /* what the bundle advises for ov2vss_stream_options.unknown_below */
    int32_t reserved;
} ov2vss_engine_info;

/* Fills `info`, whose struct_size is set. */
OV2VSS_API ov2vss_status ov2vss_engine_get_info(const ov2vss_engine* engine, ov2vss_engine_info* info);

/* ---- vocabulary
 * ------------------------------------------------------------------------------------------------------ */

typedef struct ov2vss_vocabulary ov2vss_vocabulary;

typedef enum ov2vss_synonyms {
    OV2VSS_SYNONYMS_BUNDLE = 0,  /* as the bundle says */
    OV2VSS_SYNONYMS_AVERAGE = 1, /* one embedding a class */
    OV2VSS_SYNONYMS_MAX = 2      /* each synonym has a row of its own, and a pixel gets the class of the best row */
} ov2vss_synonyms;

typedef struct ov2vss_vocabulary_options {
    uint32_t struct_size;
    int32_t synonyms;       /* one of ov2vss_synonyms */
    const char* background; /* words that take part but name nothing, as "wall; floor": pixels of them are unknown */
} ov2vss_vocabulary_options;
#define OV2VSS_VOCABULARY_OPTIONS_INIT {(uint32_t)sizeof(ov2vss_vocabulary_options), 0, NULL}

/* Words as on a command line: classes between semicolons or lines, a name and its synonyms between commas ("road; car,
 * automobile"), or the name of a list that was added to the bundle; null for the bundle's own words. Embeddings that
 * the bundle has are used as they are, the others made by its text graph. `options` may be null. */
OV2VSS_API ov2vss_status ov2vss_vocabulary_from_words(ov2vss_engine* engine, const char* words,
                                                      const ov2vss_vocabulary_options* options,
                                                      ov2vss_vocabulary** vocabulary);

/* Words of a file of UTF-8: one class a line, synonyms after commas, # before comments; or a JSON list of such lines or
 * of lists. Tables and YAML are read by the Python runtime alone. */
OV2VSS_API ov2vss_status ov2vss_vocabulary_from_file(ov2vss_engine* engine, const char* path,
                                                     const ov2vss_vocabulary_options* options,
                                                     ov2vss_vocabulary** vocabulary);

/* Words whose embeddings the caller has: `count` names, and as many rows of `width` floats, of unit length. */
OV2VSS_API ov2vss_status ov2vss_vocabulary_from_embeddings(ov2vss_engine* engine, const char* const* names,
                                                           size_t count, const float* embeddings, size_t width,
                                                           ov2vss_vocabulary** vocabulary);
OV2VSS_API void ov2vss_vocabulary_retain(ov2vss_vocabulary* vocabulary);
OV2VSS_API void ov2vss_vocabulary_release(ov2vss_vocabulary* vocabulary);

/* Number of classes, and their names (null beyond them); names are valid as long as the vocabulary. */
OV2VSS_API size_t ov2vss_vocabulary_count(const ov2vss_vocabulary* vocabulary);
OV2VSS_API const char* ov2vss_vocabulary_name(const ov2vss_vocabulary* vocabulary, size_t index);
/* Embeddings [rows, width], valid as long as the vocabulary; a row a class unless synonyms or background have their
 * own. */
OV2VSS_API const float* ov2vss_vocabulary_embeddings(const ov2vss_vocabulary* vocabulary, size_t* rows, size_t* width);
/* Bytes of a label: 1 up to 254 classes, else 2. The largest value is "unknown". */
OV2VSS_API int32_t ov2vss_vocabulary_label_bytes(const ov2vss_vocabulary* vocabulary);

/* ---- stream
 * ---------------------------------------------------------------------------------------------------------- */

typedef struct ov2vss_stream ov2vss_stream;

typedef enum ov2vss_format {
    OV2VSS_RGB = 0, /* planes[0]: 3 bytes a pixel */
    OV2VSS_BGR = 1, /* planes[0]: 3 bytes a pixel */
    OV2VSS_NV12 = 2 /* planes[0]: Y; planes[1]: U and V in turn, at half of both sides; width and height are even */
} ov2vss_format;

typedef enum ov2vss_matrix {
    OV2VSS_BT709 = 0, /* limited range */
    OV2VSS_BT601 = 1, /* limited range */
    OV2VSS_BT709_FULL = 2,
    OV2VSS_BT601_FULL = 3
} ov2vss_matrix;

/* A frame of any size in the caller's memory; it is not kept beyond the call. */
typedef struct ov2vss_image {
    uint32_t struct_size;
    int32_t format; /* one of ov2vss_format */
    int32_t width, height;
    const uint8_t* planes[2];
    ptrdiff_t strides[2]; /* bytes from a row to the next; 0: rows without a space between them */
    int32_t matrix;       /* of NV12, one of ov2vss_matrix */
    int32_t reserved;
} ov2vss_image;
#define OV2VSS_IMAGE_INIT {(uint32_t)sizeof(ov2vss_image), 0, 0, 0, {NULL, NULL}, {0, 0}, 0, 0}

typedef enum ov2vss_distant {
    OV2VSS_DISTANT_FIRST = 0,    /* the first frame */
    OV2VSS_DISTANT_FARTHEST = 1, /* the first or the last one (ov2vss_stream_set_last), whichever is farther in time */
    OV2VSS_DISTANT_RESERVOIR = 2 /* a uniformly random past frame */
} ov2vss_distant;

/* The motion between two frames, for propagation. Both are RGB [height, width, 3] at the network's size. Writes for
 * every cell of the logits' grid [cells_high, cells_wide] where it was in the frame before: flow [.., 2], (x, y) in
 * cells, so that cell (x, y) was at (x + flow[0], y + flow[1]); and trust [..], 0 to 1. Returns 0; or anything else
 * where nothing of the frame before was found (a new shot). */
typedef int32_t (*ov2vss_motion_function)(const uint8_t* now, const uint8_t* before, int32_t height, int32_t width,
                                          int32_t cells_high, int32_t cells_wide, float* flow, float* trust,
                                          void* user);

/* In the place of ov2vss_stream_options.keyframes: where the motion asks for it. */
#define OV2VSS_KEYFRAMES_AUTO (-1)

typedef struct ov2vss_stream_options {
    uint32_t struct_size;
    int32_t gap;                   /* distance between references in frames; 0: the bundle's own */
    int32_t distant;               /* one of ov2vss_distant */
    int32_t confidence;            /* 1: also make every pixel's confidence */
    float unknown_below;           /* pixels whose confidence is lower are unknown; 0: none */
    int32_t reset_on_cut;          /* 1: start the state anew where a new shot begins */
    int32_t top_classes;           /* decode only the most likely words of a shot, so many; 0: all */
    float drop_absent;             /* leave out words whose share of the softmax stays below this everywhere; 0: none */
    uint64_t seed;                 /* of OV2VSS_DISTANT_RESERVOIR */
    int32_t smooth;                /* 1: blend every frame with the one before it, moved along the motion */
    int32_t keyframes;             /* run the network on every so many frames; 0, 1: all; OV2VSS_KEYFRAMES_AUTO */
    ov2vss_motion_function motion; /* needed with smooth and keyframes */
    void* motion_user;
    int32_t threads; /* of the label map; 0: the engine's */
    int32_t reserved;
} ov2vss_stream_options;
#define OV2VSS_STREAM_OPTIONS_INIT \
    {(uint32_t)sizeof(ov2vss_stream_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, 0, 0}

/* The labels of one frame. The caller sets struct_size and the buffers that are to be filled. */
typedef struct ov2vss_result {
    uint32_t struct_size;
    int32_t label_bytes;    /* of a label in the buffer: 1, 2, or 0 for ov2vss_vocabulary_label_bytes */
    void* labels;           /* [height, width] of the frame: index of the word, or the type's largest value (unknown) */
    ptrdiff_t label_stride; /* bytes from a row to the next; 0: no space between them */
    float* confidence;      /* [height, width], the label's share of the softmax; or null */
    ptrdiff_t confidence_stride;
    /* What the library sets. */
    double time;            /* as it was given */
    int64_t index;          /* number of the frame in this stream, from 0 */
    int32_t age;            /* frames from the one that the network saw last to this one; 0 where it saw this one */
    int32_t held;           /* 1: the labels are those of an earlier frame as they were */
    int32_t propagated;     /* 1: the labels are those of an earlier frame moved along the motion */
    int32_t cut;            /* 1: a new shot began here, and the state was started anew */
    const float* logits;    /* [rows, grid_height, grid_width], valid until the stream's next call */
    const int32_t* classes; /* class of each of those rows; -1: background */
    int32_t rows;
    int32_t unknown; /* the label of pixels that are none of the words */
} ov2vss_result;

/* A stream of one video. `vocabulary` null: the bundle's own words. `options` may be null. */
OV2VSS_API ov2vss_status ov2vss_stream_create(ov2vss_engine* engine, ov2vss_vocabulary* vocabulary,
                                              const ov2vss_stream_options* options, ov2vss_stream** stream);
OV2VSS_API void ov2vss_stream_destroy(ov2vss_stream* stream);

/* Changes the words from the next frame on; the state stays. */
OV2VSS_API ov2vss_status ov2vss_stream_set_words(ov2vss_stream* stream, ov2vss_vocabulary* vocabulary);

/* Gives the first frame of a video whose stream begins at a later one, and the last frame of a video, with their times
 * in seconds (NaN: unknown). ov2vss_stream_restart forgets the first, ov2vss_stream_reset both. */
OV2VSS_API ov2vss_status ov2vss_stream_set_first(ov2vss_stream* stream, const ov2vss_image* frame, double time);
OV2VSS_API ov2vss_status ov2vss_stream_set_last(ov2vss_stream* stream, const ov2vss_image* frame, double time);

/* Labels the next frame; `time` in seconds, NaN where it has none. */
OV2VSS_API ov2vss_status ov2vss_stream_step(ov2vss_stream* stream, const ov2vss_image* frame, double time,
                                            ov2vss_result* result);
/* Gives the next frame the labels of the last one that ov2vss_stream_step saw, which had the same size. */
OV2VSS_API ov2vss_status ov2vss_stream_hold(ov2vss_stream* stream, double time, ov2vss_result* result);
/* Lets the state see a frame that needs no labels. */
OV2VSS_API ov2vss_status ov2vss_stream_advance(ov2vss_stream* stream, const ov2vss_image* frame, double time);

/* Forgets the video: the next frame begins a new one. */
OV2VSS_API ov2vss_status ov2vss_stream_reset(ov2vss_stream* stream);
/* Starts the state anew with the next frame, as after a seek; frames count on, and the last frame stays known. */
OV2VSS_API ov2vss_status ov2vss_stream_restart(ov2vss_stream* stream);

/* All that the next frames depend on, words and options aside, as bytes to be given to ov2vss_free. Without propagation
 * they are those that the Python runtime's Stream.save() gives and Stream.load() takes. */
OV2VSS_API ov2vss_status ov2vss_stream_save(ov2vss_stream* stream, void** data, size_t* size);
/* Goes on where the stream that was saved stood; it was made with the same bundle, engine, precision, gap and options.
 */
OV2VSS_API ov2vss_status ov2vss_stream_load(ov2vss_stream* stream, const void* data, size_t size);
OV2VSS_API void ov2vss_free(void* data);

/* ---- label map alone
 * ------------------------------------------------------------------------------------------------- */

/* Best class of every pixel of logits [classes, height, width] upsampled to [label_height, label_width]; labels of
 * `label_bytes` 1 or 2, `confidence` of the same size or null. */
OV2VSS_API ov2vss_status ov2vss_label_map(const float* logits, int32_t classes, int32_t height, int32_t width,
                                          void* labels, int32_t label_bytes, int32_t label_height, int32_t label_width,
                                          float* confidence, int32_t threads);

#ifdef __cplusplus
}
#endif

#endif /* OV2VSS_H */
