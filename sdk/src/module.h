// What the core and an engine's module say to each other: C alone, so that they may be built apart.
//
// A module is a shared library with one symbol, ov2vss_module_entry. It knows nothing of bundles or streams: it loads
// graphs from bytes and runs them on arrays that the core holds. Functions return 0, or 1 with a message in `error`
// (cut to its size).
#pragma once

#include <stddef.h>
#include <stdint.h>

#define OV2VSS_MODULE_VERSION 1
#define OV2VSS_MODULE_SYMBOL "ov2vss_module_entry"

#ifdef __cplusplus
extern "C" {
#endif

enum { OV2VSS_FLOAT32 = 0, OV2VSS_INT64 = 1, OV2VSS_UINT8 = 2, OV2VSS_FLOAT16 = 3 };
enum { OV2VSS_MAX_RANK = 8 };

typedef struct ov2vss_module_tensor {
    const char* name;
    int32_t type, rank;
    int64_t shape[OV2VSS_MAX_RANK];
    void* data;  // 64-byte aligned
} ov2vss_module_tensor;

typedef struct ov2vss_module_error {
    char text[512];
} ov2vss_module_error;

typedef struct ov2vss_module_config {
    const char* provider;   // "cpu", "cuda", "tensorrt"
    const char* precision;  // what is computed in
    const char* runtime;    // file of the engine's library, or ""
    const char* cache;      // existing folder for compiled graphs, or ""
    int32_t threads, device;
} ov2vss_module_config;

typedef struct ov2vss_module {
    uint32_t version;
    const char* family;  // as manifests name it: "openvino", "onnxruntime"
    const char* python;  // class of the Python runtime that computes the same, for saved streams
    int (*open)(const ov2vss_module_config* config, void** engine, ov2vss_module_error* error);
    void (*close)(void* engine);
    const char* (*runtime)(void* engine);  // name and version
    // `rows` > 0: the graph's input `fixed` has so many rows of `width`, and is compiled for them.
    int (*load)(void* engine, const void* bytes, size_t size, const char* key, const char* fixed, int64_t rows,
                int64_t width, void** graph, ov2vss_module_error* error);
    void (*unload)(void* graph);
    // From any thread. All outputs that are wanted are given, with their shapes and memory.
    int (*run)(void* graph, const ov2vss_module_tensor* inputs, size_t input_count, const ov2vss_module_tensor* outputs,
               size_t output_count, ov2vss_module_error* error);
} ov2vss_module;

typedef const ov2vss_module* (*ov2vss_module_function)(void);

#ifdef __cplusplus
}
#endif
