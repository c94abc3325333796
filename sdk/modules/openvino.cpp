// Graphs on OpenVINO's CPU plugin.
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "module.h"

namespace {

void set(ov2vss_module_error* error, const std::string& text) {
    std::strncpy(error->text, text.c_str(), sizeof(error->text) - 1);
    error->text[sizeof(error->text) - 1] = '\0';
}

// The last line of a message that says anything, without the stack of places before it.
std::string reason(const std::exception& error) {
    std::string text = error.what(), found = "no reason given";
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        if (text.find_first_not_of(" \t\r", at) < end) found = text.substr(at, end - at);
        at = end + 1;
    }
    return found.substr(0, 200);
}

struct Engine {
    ov::Core core;
    ov::AnyMap options;
    std::string runtime;
};

// A compiled graph and its requests: one for each thread that runs it at the same time.
struct Graph {
    ov::CompiledModel model;
    std::mutex lock;
    std::vector<ov::InferRequest> idle;
};

ov::element::Type type_of(int type) {
    switch (type) {
        case OV2VSS_INT64: return ov::element::i64;
        case OV2VSS_UINT8: return ov::element::u8;
        case OV2VSS_FLOAT16: return ov::element::f16;
        default: return ov::element::f32;
    }
}

ov::Tensor view(const ov2vss_module_tensor& tensor) {
    return {type_of(tensor.type), ov::Shape(tensor.shape, tensor.shape + tensor.rank), tensor.data};
}

int open(const ov2vss_module_config* config, void** engine, ov2vss_module_error* error) try {
    auto made = std::make_unique<Engine>();
    made->runtime = std::string("OpenVINO ") + ov::get_openvino_version().buildNumber;
    if (std::strcmp(config->provider, "cpu") != 0) {
        set(error, std::string("openvino has no ") + config->provider);
        return 1;
    }
    const std::string precision = config->precision;
    if (precision == "bf16") {
        const auto can = made->core.get_property("CPU", ov::device::capabilities);
        if (std::find(can.begin(), can.end(), "BF16") == can.end()) {
            set(error, "this processor has no bfloat16 arithmetic");
            return 1;
        }
    }
    if (*config->cache) made->core.set_property(ov::cache_dir(config->cache));
    made->options = {{"INFERENCE_PRECISION_HINT", precision == "bf16" ? "bf16" : "f32"},
                     {"INFERENCE_NUM_THREADS", config->threads},
                     {"NUM_STREAMS", "1"},
                     {"PERFORMANCE_HINT", "LATENCY"}};
    *engine = made.release();
    return 0;
} catch (const std::exception& failure) {
    set(error, reason(failure));
    return 1;
}

void close(void* engine) {
    delete static_cast<Engine*>(engine);
}

const char* runtime(void* engine) {
    return static_cast<Engine*>(engine)->runtime.c_str();
}

int load(void* engine, const void* bytes, size_t size, const char*, const char* fixed, int64_t rows, int64_t width,
         void** graph, ov2vss_module_error* error) try {
    auto& self = *static_cast<Engine*>(engine);
    const auto model = self.core.read_model(std::string(static_cast<const char*>(bytes), size), ov::Tensor());
    if (rows > 0) model->reshape({{std::string(fixed), ov::PartialShape{rows, width}}});
    auto made = std::make_unique<Graph>();
    made->model = self.core.compile_model(model, "CPU", self.options);
    *graph = made.release();
    return 0;
} catch (const std::exception& failure) {
    set(error, reason(failure));
    return 1;
}

void unload(void* graph) {
    delete static_cast<Graph*>(graph);
}

int run(void* graph, const ov2vss_module_tensor* inputs, size_t input_count, const ov2vss_module_tensor* outputs,
        size_t output_count, ov2vss_module_error* error) try {
    auto& self = *static_cast<Graph*>(graph);
    ov::InferRequest request;
    {
        const std::lock_guard<std::mutex> held(self.lock);
        if (!self.idle.empty()) {
            request = std::move(self.idle.back());
            self.idle.pop_back();
        }
    }
    if (!request) request = self.model.create_infer_request();
    for (size_t i = 0; i < input_count; ++i) request.set_tensor(inputs[i].name, view(inputs[i]));
    std::vector<const ov2vss_module_tensor*> copied;
    for (size_t i = 0; i < output_count; ++i) {
        if (self.model.output(outputs[i].name).get_partial_shape().is_static())
            request.set_tensor(outputs[i].name, view(outputs[i]));
        else
            copied.push_back(&outputs[i]);
    }
    request.infer();
    for (const auto* output : copied) {
        const ov::Tensor found = request.get_tensor(output->name);
        if (found.get_shape() != ov::Shape(output->shape, output->shape + output->rank)) {
            set(error, std::string(output->name) + " has another shape than the manifest says");
            return 1;
        }
        std::memcpy(output->data, found.data(), found.get_byte_size());
    }
    const std::lock_guard<std::mutex> held(self.lock);
    self.idle.push_back(std::move(request));
    return 0;
} catch (const std::exception& failure) {
    set(error, reason(failure));
    return 1;
}

constexpr ov2vss_module kModule = {
    OV2VSS_MODULE_VERSION, "openvino", "OpenVinoEngine", open, close, runtime, load, unload, run};

}  // namespace

extern "C" __attribute__((visibility("default"))) const ov2vss_module* ov2vss_module_entry() {
    return &kModule;
}
