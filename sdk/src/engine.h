// A bundle ready to run: its graphs on an engine's module, wired by the names of their tensors.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "bundle.h"
#include "tensor.h"
#include "tokenizer.h"

namespace ov2vss {

struct EngineOptions {
    int threads = 0, device = 0;
    std::string backend = "openvino", precision = "fp32", modules, runtime;
    std::optional<std::string> cache;
};

// How the graphs of a variant are connected: a graph asks for its inputs by name.
struct Wiring {
    std::string frame;                 // input of the backbone
    std::vector<std::string> distant;  // its outputs that the step takes from the distant frame
    bool has_step = false;
    std::vector<std::string> step;     // inputs of the step from the frame itself
    std::vector<std::string> decoder;  // inputs of the decoder beside the words
    std::string words, logits;
    bool has_parts = false;  // the decoder in two parts
    std::vector<std::string> refinement, head;
    std::string refined;
    int grid_height = 0, grid_width = 0;
    std::string tokens, mask, embeddings;  // of the text graph; the mask may be empty

    static Wiring of(const Manifest& manifest, const Variant& variant);
};

class Engine {
public:
    static std::shared_ptr<Engine> open(const std::string& folder, const EngineOptions& options);
    // For tests: a module that is no shared library.
    static std::shared_ptr<Engine> with_module(const std::string& folder, const EngineOptions& options,
                                               const ov2vss_module* module);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    const Bundle& bundle() const { return bundle_; }
    const Manifest& manifest() const { return bundle_.manifest(); }
    const Variant& variant() const { return *variant_; }
    const Wiring& wiring() const { return wiring_; }
    int threads() const { return threads_; }
    const std::string& backend() const { return backend_; }
    const std::string& precision() const { return precision_; }
    const std::string& runtime() const { return runtime_; }
    // Names model and arithmetic, as the Python runtime does: a saved stream goes on only on an engine with the same.
    const std::string& identity() const { return identity_; }
    // The output of the backbone that shot changes are seen in, and that candidates are chosen by; null without one.
    const TensorInfo* cut() const { return cut_; }
    const TensorInfo* dense() const { return dense_; }

    // All that the backbone gives for a frame at the network's size, RGB without spaces between rows.
    Tensors backbone(const std::uint8_t* frame);
    Tensors initial_state() const;
    // Guidance and the next state.
    std::pair<Tensors, Tensors> step(const Tensors& features, const Tensors& context, const Tensors& state);
    // Logits [rows, grid] for embeddings [rows, embed_dim].
    Tensor decode(const Tensors& features, const Tensors& guidance, const std::vector<float>& embeddings,
                  std::size_t rows);
    // Unit embeddings of texts, [texts, embed_dim]; the last 20,000 texts are remembered.
    std::vector<float> encode_text(const std::vector<std::string>& texts);

private:
    Engine(Bundle bundle, const EngineOptions& options, const ov2vss_module* module, std::shared_ptr<void> library);
    void* graph(const std::string& name, int rows = 0);
    void run(const std::string& name, int rows, const std::vector<std::pair<std::string, Tensor>>& inputs,
             const std::vector<std::pair<std::string, Tensor>>& outputs);
    Tensors run_static(const std::string& name, const std::vector<std::pair<std::string, Tensor>>& inputs);
    std::vector<float> encode_new(const std::vector<std::string>& texts);
    Tensor decode_filled(const std::vector<std::pair<std::string, Tensor>>& shared,
                         const std::vector<float>& embeddings, std::size_t rows);
    Tensor decode_chunks(const Tensors& features, const Tensors& guidance, const std::vector<float>& embeddings,
                         std::size_t rows, std::size_t chunk);

    std::shared_ptr<void> library_;
    const ov2vss_module* module_;
    Bundle bundle_;
    const Variant* variant_ = nullptr;
    Wiring wiring_;
    int threads_ = 1;
    std::string backend_, precision_, runtime_, identity_;
    const TensorInfo *cut_ = nullptr, *dense_ = nullptr;
    void* self_ = nullptr;
    bool fills_up_ = false, parts_ = false, in_turn_ = false;
    std::vector<std::size_t> counts_;
    std::mutex graph_lock_, turn_, text_lock_, chunk_lock_;
    std::map<std::pair<std::string, int>, void*> graphs_;
    std::size_t chunk_ = 0;
    std::unique_ptr<Tokenizer> tokenizer_;
    using Remembered = std::list<std::pair<std::string, std::vector<float>>>;
    Remembered texts_;
    std::unordered_map<std::string, Remembered::iterator> text_places_;
};

// Sizes of chunks that cover `count` rows, of `counts` (rising); together they may be more than `count`.
std::vector<std::size_t> filled_chunks(std::size_t count, const std::vector<std::size_t>& counts);
// Where chunks of at most `size` begin that cover `count` rows evenly, and `count` itself.
std::vector<std::size_t> even_chunks(std::size_t count, std::size_t size);

}  // namespace ov2vss
