// Graphs on ONNX Runtime, whose library is loaded at run time: on the processor, or through its CUDA and TensorRT
// providers.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "module.h"

namespace {

// The lowest version of the interface that has all that is used here (ONNX Runtime 1.17).
constexpr std::uint32_t kLowest = 17;

const OrtApi* api = nullptr;

void set(ov2vss_module_error* error, const std::string& text) {
    std::strncpy(error->text, text.c_str(), sizeof(error->text) - 1);
    error->text[sizeof(error->text) - 1] = '\0';
}

// A call of ONNX Runtime that failed; the first line of its message.
struct Failure {
    std::string text;
};

void check(OrtStatus* status) {
    if (!status) return;
    std::string text = api->GetErrorMessage(status);
    api->ReleaseStatus(status);
    throw Failure{text.substr(0, std::min<std::size_t>(text.find('\n'), 200))};
}

template <typename Object, typename Release>
std::unique_ptr<Object, Release> owned(Object* object, Release release) {
    return {object, release};
}

struct Engine {
    OrtEnv* env = nullptr;
    OrtMemoryInfo* memory = nullptr;
    std::string provider, precision, cache, runtime;
    int threads = 1, device = 0;

    Engine() = default;
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;
    ~Engine() {
        if (memory) api->ReleaseMemoryInfo(memory);
        if (env) api->ReleaseEnv(env);
    }
};

struct Graph {
    Engine* engine = nullptr;
    OrtSession* session = nullptr;
};

ONNXTensorElementDataType type_of(int type) {
    switch (type) {
        case OV2VSS_INT64: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
        case OV2VSS_UINT8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
        case OV2VSS_FLOAT16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
        default: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    }
}

std::size_t bytes_of(const ov2vss_module_tensor& tensor) {
    std::size_t count = tensor.type == OV2VSS_INT64     ? 8
                        : tensor.type == OV2VSS_UINT8   ? 1
                        : tensor.type == OV2VSS_FLOAT16 ? 2
                                                        : 4;
    for (int axis = 0; axis < tensor.rank; ++axis) count *= static_cast<std::size_t>(tensor.shape[axis]);
    return count;
}

void append_cuda(OrtSessionOptions* options, const Engine& engine) {
    OrtCUDAProviderOptionsV2* cuda = nullptr;
    check(api->CreateCUDAProviderOptions(&cuda));
    const auto held = owned(cuda, api->ReleaseCUDAProviderOptions);
    const std::string device = std::to_string(engine.device);
    // TF32 is on by default there, and then fp32 would miss its own gates.
    const char* keys[] = {"device_id", "use_tf32"};
    const char* values[] = {device.c_str(), engine.precision == "tf32" ? "1" : "0"};
    check(api->UpdateCUDAProviderOptions(cuda, keys, values, 2));
    check(api->SessionOptionsAppendExecutionProvider_CUDA_V2(options, cuda));
}

void append_tensorrt(OrtSessionOptions* options, const Engine& engine) {
    OrtTensorRTProviderOptionsV2* tensorrt = nullptr;
    check(api->CreateTensorRTProviderOptions(&tensorrt));
    const auto held = owned(tensorrt, api->ReleaseTensorRTProviderOptions);
    const std::string device = std::to_string(engine.device);
    std::vector<const char*> keys = {"device_id"}, values = {device.c_str()};
    if (!engine.cache.empty()) {
        keys.insert(keys.end(), {"trt_engine_cache_enable", "trt_engine_cache_path"});
        values.insert(values.end(), {"1", engine.cache.c_str()});
    }
    check(api->UpdateTensorRTProviderOptions(tensorrt, keys.data(), values.data(), keys.size()));
    check(api->SessionOptionsAppendExecutionProvider_TensorRT_V2(options, tensorrt));
}

int open(const ov2vss_module_config* config, void** engine, ov2vss_module_error* error) try {
    std::vector<std::string> tried = {config->runtime};
    if (tried[0].empty()) tried = {"libonnxruntime.so.1", "libonnxruntime.so"};
    void* library = nullptr;
    std::string reason;
    for (const std::string& path : tried) {
        library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library) break;
        if (reason.empty()) reason = dlerror();
    }
    if (!library) {
        set(error, reason);
        return 1;
    }
    using Base = const OrtApiBase* (*)();
    const auto base = reinterpret_cast<Base>(dlsym(library, "OrtGetApiBase"));
    const OrtApi* found = base ? base()->GetApi(kLowest) : nullptr;
    if (!found) {
        set(error, "its library is older than ONNX Runtime 1." + std::to_string(kLowest));
        return 1;
    }
    {
        // One library a process: engines that name another one get what was loaded first.
        static std::mutex lock;
        const std::lock_guard<std::mutex> held(lock);
        if (!api) api = found;
    }
    // TensorRT computes float32 in TF32 unless it is told not to, and its provider has no switch for it.
    if (!std::strcmp(config->provider, "tensorrt")) setenv("NVIDIA_TF32_OVERRIDE", "0", 0);
    auto made = std::make_unique<Engine>();
    made->provider = config->provider;
    made->precision = config->precision;
    made->cache = config->cache;
    made->threads = config->threads;
    made->device = config->device;
    made->runtime = std::string("ONNX Runtime ") + base()->GetVersionString();
    if (made->provider != "cpu" && made->provider != "cuda" && made->provider != "tensorrt") {
        set(error, "onnxruntime has no provider " + made->provider);
        return 1;
    }
    check(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "ov2vss", &made->env));
    check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &made->memory));
    *engine = made.release();
    return 0;
} catch (const Failure& failure) {
    set(error, failure.text);
    return 1;
} catch (const std::exception& failure) {
    set(error, failure.what());
    return 1;
}

void close(void* engine) {
    delete static_cast<Engine*>(engine);
}

const char* runtime(void* engine) {
    return static_cast<Engine*>(engine)->runtime.c_str();
}

int load(void* engine, const void* bytes, size_t size, const char*, const char*, int64_t, int64_t, void** graph,
         ov2vss_module_error* error) try {
    auto& self = *static_cast<Engine*>(engine);
    OrtSessionOptions* options = nullptr;
    check(api->CreateSessionOptions(&options));
    const auto held = owned(options, api->ReleaseSessionOptions);
    check(api->SetIntraOpNumThreads(options, self.threads));
    check(api->SetInterOpNumThreads(options, 1));
    check(api->SetSessionExecutionMode(options, ORT_SEQUENTIAL));
    check(api->SetSessionLogSeverityLevel(options, 3));
    // Idle pools of the other sessions must not spin beside the one that works.
    check(api->AddSessionConfigEntry(options, "session.force_spinning_stop", "1"));
    // Ends the process on CLIP's text tower in fp16 (ONNX Runtime 1.32).
    if (self.provider == "cpu" && self.precision == "fp16")
        check(api->AddSessionConfigEntry(options, "optimization.disable_specified_optimizers",
                                         "FuseFp16InitializerToFp32NodeTransformer"));
    if (self.provider == "tensorrt") append_tensorrt(options, self);
    if (self.provider != "cpu") append_cuda(options, self);
    auto made = std::make_unique<Graph>();
    made->engine = &self;
    check(api->CreateSessionFromArray(self.env, bytes, size, options, &made->session));
    *graph = made.release();
    return 0;
} catch (const Failure& failure) {
    set(error, failure.text);
    return 1;
} catch (const std::exception& failure) {
    set(error, failure.what());
    return 1;
}

void unload(void* graph) {
    auto* self = static_cast<Graph*>(graph);
    api->ReleaseSession(self->session);
    delete self;
}

// Values over the core's memory, released with the list.
class Values {
public:
    Values(const ov2vss_module_tensor* tensors, std::size_t count, const OrtMemoryInfo* memory) {
        for (std::size_t i = 0; i < count; ++i) {
            OrtValue* value = nullptr;
            const ov2vss_module_tensor& tensor = tensors[i];
            check(api->CreateTensorWithDataAsOrtValue(memory, tensor.data, bytes_of(tensor), tensor.shape,
                                                      static_cast<std::size_t>(tensor.rank), type_of(tensor.type),
                                                      &value));
            held_.emplace_back(value, api->ReleaseValue);
            values_.push_back(value);
            names_.push_back(tensor.name);
        }
    }
    OrtValue** values() { return values_.data(); }
    const char* const* names() const { return names_.data(); }

private:
    std::vector<std::unique_ptr<OrtValue, void (*)(OrtValue*)>> held_;
    std::vector<OrtValue*> values_;
    std::vector<const char*> names_;
};

int run(void* graph, const ov2vss_module_tensor* inputs, size_t input_count, const ov2vss_module_tensor* outputs,
        size_t output_count, ov2vss_module_error* error) try {
    auto& self = *static_cast<Graph*>(graph);
    Values in(inputs, input_count, self.engine->memory), out(outputs, output_count, self.engine->memory);
    check(
        api->Run(self.session, nullptr, in.names(), in.values(), input_count, out.names(), output_count, out.values()));
    return 0;
} catch (const Failure& failure) {
    set(error, failure.text);
    return 1;
} catch (const std::exception& failure) {
    set(error, failure.what());
    return 1;
}

constexpr ov2vss_module kModule = {
    OV2VSS_MODULE_VERSION, "onnxruntime", "OrtEngine", open, close, runtime, load, unload, run};

}  // namespace

extern "C" __attribute__((visibility("default"))) const ov2vss_module* ov2vss_module_entry() {
    return &kModule;
}
