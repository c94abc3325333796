#include "engine.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "error.h"
#include "log.h"
#include "processors.h"

namespace ov2vss {

namespace {

// Numbers of classes that OpenVINO compiles the decoder for; chunks are the largest, the rest is filled up to the next.
// The number of heads of the text refinement is left out, as in the Python runtime, which says why.
const std::vector<std::size_t> kCounts = {1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32};
// Classes per run on ONNX Runtime that are tried, with how many they are tried, and what is one chunk always.
const std::vector<std::size_t> kChunks = {6, 8, 12, 16, 32};
constexpr std::size_t kMeasured = 128, kFew = 16, kRefined = 1024, kTexts = 20'000;

std::vector<std::string> names_of(const std::vector<TensorInfo>& tensors) {
    std::vector<std::string> found;
    for (const TensorInfo& tensor : tensors) found.push_back(tensor.name);
    return found;
}

bool has(const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

std::string folder_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash);
}

// Folder that this library lies in.
std::string own_folder() {
    Dl_info info{};
    return dladdr(reinterpret_cast<const void*>(&own_folder), &info) && info.dli_fname ? folder_of(info.dli_fname)
                                                                                       : ".";
}

std::shared_ptr<void> load_library(const std::string& family, const std::string& modules) {
    const std::string name = "libov2vss_" + std::string(family == "onnxruntime" ? "ort" : family) + ".so";
    std::vector<std::string> tried;
    if (!modules.empty()) {
        tried = {modules + "/" + name};
    } else {
        const std::string own = own_folder();
        tried = {own + "/ov2vss/" + name, own + "/" + name, name};
    }
    std::string reason;
    for (const std::string& path : tried) {
        struct stat found{};
        if (path.find('/') != std::string::npos && stat(path.c_str(), &found) != 0) {
            if (reason.empty()) reason = path + " does not exist";
            continue;
        }
        if (void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
            // Engines keep threads and tables of their own: a module that was loaded stays.
            return {handle, [](void*) {}};
        }
        reason = dlerror();
    }
    throw engine_error("engine " + family + " cannot be loaded (" + reason + ")",
                       "install the module " + name + " and its library, or name their folder");
}

bool make_folders(const std::string& path) {
    for (std::size_t at = 1; at <= path.size(); ++at)
        if (at == path.size() || path[at] == '/') mkdir(path.substr(0, at).c_str(), 0777);
    struct stat found{};
    return stat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode);
}

// The Python runtime's folder for compiled graphs: ~/.cache/ov2vss/openvino/f32, or below $XDG_CACHE_HOME.
std::string default_cache() {
    const char* cache = std::getenv("XDG_CACHE_HOME");
    if (cache && *cache) return std::string(cache) + "/ov2vss";
    const char* home = std::getenv("HOME");
    return home && *home ? std::string(home) + "/.cache/ov2vss" : "";
}

std::vector<std::pair<std::string, Tensor>> given(const std::vector<std::string>& names, const Tensors& first,
                                                  const Tensors& second) {
    std::vector<std::pair<std::string, Tensor>> found;
    for (const std::string& name : names) {
        const auto at = first.find(name);
        found.emplace_back(name, at != first.end() ? at->second : second.at(name));
    }
    return found;
}

}  // namespace

Wiring Wiring::of(const Manifest& manifest, const Variant& variant) {
    auto refuse = [&](const std::string& graph, const std::string& why) {
        return bundle_error("bundle " + manifest.name + ": graph " + graph + " of " + variant.name + " " + why,
                            "export the bundle again");
    };
    auto one = [&](const std::string& graph, const std::vector<std::string>& names, const char* what) {
        if (names.size() != 1)
            throw refuse(graph,
                         "has " + std::to_string(names.size()) + " tensors as " + what + ", where one is expected");
        return names[0];
    };
    const auto wants = [&](const char* graph) { return names_of(variant.graphs.at(graph).inputs); };
    const auto gives = [&](const char* graph) { return names_of(variant.graphs.at(graph).outputs); };
    Wiring found;
    const GraphInfo& backbone = variant.graphs.at("backbone");
    found.frame = one("backbone", wants("backbone"), "input");
    const std::vector<std::int64_t> frame_shape = {1, manifest.height, manifest.width, 3};
    if (backbone.inputs[0].shape != frame_shape || backbone.inputs[0].type != OV2VSS_UINT8)
        throw refuse("backbone", "takes no frame of the size that the manifest states");
    const std::vector<std::string> features = gives("backbone");
    std::vector<std::string> known = features;
    const auto& state = manifest.state;
    found.has_step = variant.graphs.count("stcf_step") != 0;
    if (found.has_step) {
        const std::vector<std::string> inputs = wants("stcf_step"), outputs = gives("stcf_step");
        for (const std::string& name : inputs) {
            if (has(manifest.distant, name) && has(features, name))
                found.distant.push_back(name);
            else if (!state || name != state->input)
                found.step.push_back(name);
        }
        for (const std::string& name : found.step)
            if (!has(features, name))
                throw refuse("stcf_step", "asks for " + name + ", which neither the backbone nor the state gives");
        if (state && (!has(inputs, state->input) || !has(outputs, state->output)))
            throw refuse("stcf_step", "does not carry the state " + state->input + " -> " + state->output);
        for (const std::string& name : outputs)
            if (!state || name != state->output) known.push_back(name);
    } else if (state) {
        throw refuse("stcf_step", "is missing, but the manifest has a state");
    }
    std::vector<std::string> others;
    for (const std::string& name : wants("decoder")) (has(known, name) ? found.decoder : others).push_back(name);
    found.words = one("decoder", others, "inputs that no other graph gives");
    if (variant.graphs.count(kRefinement) && variant.graphs.count(kClassHead)) {
        found.has_parts = true;
        found.refined = one(kRefinement, gives(kRefinement), "output");
        for (const std::string& name : wants(kRefinement))
            if (name != found.words) found.refinement.push_back(name);
        for (const std::string& name : wants(kClassHead))
            if (name != found.refined) found.head.push_back(name);
        for (const auto& [part, names] :
             {std::pair(kRefinement, &found.refinement), std::pair(kClassHead, &found.head)})
            for (const std::string& name : *names)
                if (!has(known, name)) throw refuse(part, "asks for " + name + ", which no other graph gives");
    }
    found.logits = one("decoder", gives("decoder"), "output");
    const auto& shape = variant.graphs.at("decoder").outputs[0].shape;
    if (shape.size() != 3 || shape[1] < 1 || shape[2] < 1)
        throw refuse("decoder", "gives logits of no fixed height and width");
    found.grid_height = static_cast<int>(shape[1]);
    found.grid_width = static_cast<int>(shape[2]);
    for (const char* graph : {"backbone", "stcf_step"})
        if (variant.graphs.count(graph))
            for (const TensorInfo& output : variant.graphs.at(graph).outputs)
                if (std::count(output.shape.begin(), output.shape.end(), -1))
                    throw refuse(graph, "gives " + output.name + " of no fixed shape");
    const std::vector<std::string> text = wants("text");
    found.tokens = text.size() == 1 ? text[0] : "tokens";
    std::vector<std::string> masks;
    for (const std::string& name : text)
        if (name != found.tokens) masks.push_back(name);
    if (text.size() > 1) found.mask = one("text", masks, "mask");
    found.embeddings = one("text", gives("text"), "output");
    return found;
}

std::shared_ptr<Engine> Engine::open(const std::string& folder, const EngineOptions& options) {
    const std::string family = options.backend.substr(0, options.backend.find(':'));
    if (family != "openvino" && family != "onnxruntime")
        throw argument_error("there is no engine '" + options.backend + "'", "use openvino or onnxruntime");
    Bundle bundle = Bundle::open(folder);
    auto library = load_library(family, options.modules);
    const auto entry = reinterpret_cast<ov2vss_module_function>(dlsym(library.get(), OV2VSS_MODULE_SYMBOL));
    const ov2vss_module* module = entry ? entry() : nullptr;
    if (!module || module->version != OV2VSS_MODULE_VERSION)
        throw engine_error("the module of " + family + " is of another release", "install all of libov2vss together");
    return std::shared_ptr<Engine>(new Engine(std::move(bundle), options, module, library));
}

std::shared_ptr<Engine> Engine::with_module(const std::string& folder, const EngineOptions& options,
                                            const ov2vss_module* module) {
    return std::shared_ptr<Engine>(new Engine(Bundle::open(folder), options, module, nullptr));
}

Engine::Engine(Bundle bundle, const EngineOptions& options, const ov2vss_module* module, std::shared_ptr<void> library)
    : library_(std::move(library)),
      module_(module),
      bundle_(std::move(bundle)),
      backend_(options.backend),
      precision_(options.precision) {
    if (options.threads < 0)
        throw argument_error("threads=" + std::to_string(options.threads), "give a number of threads, or 0");
    const std::string family = module->family;
    const std::size_t colon = backend_.find(':');
    const std::string provider = colon == std::string::npos ? "cpu" : backend_.substr(colon + 1);
    // Arithmetic that an engine makes of the fp32 graphs.
    const bool computed = precision_ == "bf16" || precision_ == "tf32";
    variant_ = &bundle_.variant(computed ? "fp32" : precision_, family);
    wiring_ = Wiring::of(manifest(), *variant_);
    threads_ = options.threads ? options.threads : available_threads();
    std::string cache = options.cache.value_or(default_cache());
    if (!cache.empty()) {
        cache += "/" + family + (family == "openvino" ? (precision_ == "bf16" ? "/bf16" : "/f32") : "");
        if (!make_folders(cache)) cache.clear();  // a read-only home: compile every time
    }
    fills_up_ = family == "openvino";
    in_turn_ = family == "onnxruntime";
    parts_ = in_turn_ && provider == "cpu" && wiring_.has_parts;
    for (const std::size_t count : kCounts)
        if (static_cast<int>(count) != manifest().heads) counts_.push_back(count);
    for (const TensorInfo& output : variant_->graphs.at("backbone").outputs) {
        if (manifest().cut && output.name == manifest().cut->output) cut_ = &output;
        if (output.name == manifest().dense) dense_ = &output;
    }
    if (cut_ && (cut_->shape.size() != 3 || cut_->shape[0] <= manifest().cut->level || cut_->type != OV2VSS_FLOAT32))
        throw bundle_error("bundle " + bundle_.folder() + ": cut.level is not in " + cut_->name,
                           "export the bundle again");
    if (dense_ &&
        (dense_->shape.size() != 3 || dense_->shape[0] != manifest().embed_dim || dense_->type != OV2VSS_FLOAT32))
        dense_ = nullptr;
    identity_ = std::string(module->python) + " " + precision_ + " ";
    bool first = true;
    for (const auto& [name, info] : variant_->graphs) {
        identity_ += (first ? "" : " ") + info.sha256.substr(0, 16);
        first = false;
    }
    const ov2vss_module_config config = {provider.c_str(), precision_.c_str(), options.runtime.c_str(),
                                         cache.c_str(),    threads_,           options.device};
    ov2vss_module_error error{};
    if (module_->open(&config, &self_, &error) != 0)
        throw engine_error("engine " + backend_ + " cannot be started (" + error.text + ")",
                           "install it, or use another engine or precision");
    runtime_ = module_->runtime(self_);
    try {
        graph("backbone");
        if (wiring_.has_step) graph("stcf_step");
        if (parts_) {
            graph(kRefinement);
            graph(kClassHead);
        } else if (in_turn_) {
            graph("decoder");
        }
    } catch (...) {
        for (const auto& loaded : graphs_) module_->unload(loaded.second);
        module_->close(self_);
        throw;
    }
}

Engine::~Engine() {
    for (const auto& loaded : graphs_) module_->unload(loaded.second);
    module_->close(self_);
}

void* Engine::graph(const std::string& name, int rows) {
    const std::lock_guard<std::mutex> held(graph_lock_);
    void*& found = graphs_[{name, rows}];
    if (!found) {
        const std::string content = bundle_.graph(*variant_, name);
        ov2vss_module_error error{};
        const std::string key = variant_->graphs.at(name).sha256;
        if (module_->load(self_, content.data(), content.size(), key.c_str(), wiring_.words.c_str(), rows,
                          manifest().embed_dim, &found, &error) != 0) {
            graphs_.erase({name, rows});
            throw bundle_error(bundle_.folder() + "/" + variant_->graphs.at(name).file + " cannot be loaded by " +
                                   runtime_ + " (" + error.text + ")",
                               "export it again");
        }
    }
    return found;
}

void Engine::run(const std::string& name, int rows, const std::vector<std::pair<std::string, Tensor>>& inputs,
                 const std::vector<std::pair<std::string, Tensor>>& outputs) {
    auto described = [](const std::vector<std::pair<std::string, Tensor>>& tensors) {
        std::vector<ov2vss_module_tensor> found(tensors.size());
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            const Tensor& tensor = tensors[i].second;
            found[i] = {tensors[i].first.c_str(),
                        tensor.type,
                        static_cast<int32_t>(tensor.shape.size()),
                        {},
                        tensor.data.get()};
            std::copy(tensor.shape.begin(), tensor.shape.end(), found[i].shape);
        }
        return found;
    };
    void* loaded = graph(name, rows);
    const auto in = described(inputs), out = described(outputs);
    ov2vss_module_error error{};
    int failed = 0;
    if (in_turn_) {
        // Graphs of several streams at once would fight for the same cores: one runs at a time, on all of them.
        const std::lock_guard<std::mutex> held(turn_);
        failed = module_->run(loaded, in.data(), in.size(), out.data(), out.size(), &error);
    } else {
        failed = module_->run(loaded, in.data(), in.size(), out.data(), out.size(), &error);
    }
    if (failed)
        throw engine_error(runtime_ + " failed in " + name + " (" + error.text + ")",
                           "use another precision or engine, and check the bundle with ov2vss-export --verify-only");
}

Tensors Engine::run_static(const std::string& name, const std::vector<std::pair<std::string, Tensor>>& inputs) {
    std::vector<std::pair<std::string, Tensor>> outputs;
    for (const TensorInfo& info : variant_->graphs.at(name).outputs)
        outputs.emplace_back(info.name, Tensor::empty(info.type, info.shape));
    run(name, 0, inputs, outputs);
    return {outputs.begin(), outputs.end()};
}

Tensors Engine::backbone(const std::uint8_t* frame) {
    return run_static("backbone",
                      {{wiring_.frame, Tensor::of(frame, OV2VSS_UINT8, {1, manifest().height, manifest().width, 3})}});
}

Tensors Engine::initial_state() const {
    const auto& state = manifest().state;
    if (!state) return {};
    Tensor zeros = Tensor::empty(state->type, state->shape);
    std::memset(zeros.data.get(), 0, zeros.bytes());
    return {{state->input, zeros}};
}

std::pair<Tensors, Tensors> Engine::step(const Tensors& features, const Tensors& context, const Tensors& state) {
    if (!wiring_.has_step) return {};
    auto inputs = given(wiring_.step, features, features);
    inputs.insert(inputs.end(), context.begin(), context.end());
    inputs.insert(inputs.end(), state.begin(), state.end());
    Tensors outputs = run_static("stcf_step", inputs), next;
    if (manifest().state) {
        const auto carried = outputs.find(manifest().state->output);
        next[manifest().state->input] = carried->second;
        outputs.erase(carried);
    }
    return {std::move(outputs), std::move(next)};
}

std::vector<std::size_t> filled_chunks(std::size_t count, const std::vector<std::size_t>& counts) {
    std::vector<std::size_t> sizes(count / counts.back(), counts.back());
    if (const std::size_t rest = count % counts.back())
        sizes.push_back(*std::find_if(counts.begin(), counts.end(), [&](std::size_t size) { return size >= rest; }));
    return sizes;
}

std::vector<std::size_t> even_chunks(std::size_t count, std::size_t size) {
    const std::size_t parts = (count + size - 1) / size;
    std::vector<std::size_t> starts;
    for (std::size_t part = 0; part <= parts; ++part) starts.push_back(part * count / parts);
    return starts;
}

Tensor Engine::decode(const Tensors& features, const Tensors& guidance, const std::vector<float>& embeddings,
                      std::size_t rows) {
    if (fills_up_) return decode_filled(given(wiring_.decoder, guidance, features), embeddings, rows);
    std::size_t chunk = kFew;
    if (rows > kFew) {
        // Classes per run of the decoder, measured once with the first large vocabulary; the logits are the same.
        const std::lock_guard<std::mutex> held(chunk_lock_);
        if (!chunk_) {
            const std::size_t some = std::min(rows, kMeasured);
            double best = 1e300;
            for (int turn = 0; turn < 3; ++turn)
                for (const std::size_t tried : kChunks) {
                    if (tried >= 2 * some) continue;
                    const auto began = std::chrono::steady_clock::now();
                    decode_chunks(features, guidance, embeddings, some, tried);
                    const double seconds =
                        std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
                    if (seconds < best) {
                        best = seconds;
                        chunk_ = tried;
                    }
                }
        }
        chunk = chunk_;
    }
    return decode_chunks(features, guidance, embeddings, rows, chunk);
}

Tensor Engine::decode_filled(const std::vector<std::pair<std::string, Tensor>>& shared,
                             const std::vector<float>& embeddings, std::size_t rows) {
    const std::size_t width = static_cast<std::size_t>(manifest().embed_dim);
    const std::vector<std::size_t> sizes = filled_chunks(rows, counts_);
    std::size_t all = 0;
    for (const std::size_t size : sizes) all += size;
    // The last row again until the last chunk is full.
    Tensor words = Tensor::empty(OV2VSS_FLOAT32, {static_cast<std::int64_t>(all), static_cast<std::int64_t>(width)});
    for (std::size_t row = 0; row < all; ++row)
        std::memcpy(words.floats() + row * width, embeddings.data() + std::min(row, rows - 1) * width,
                    width * sizeof(float));
    const std::size_t plane =
        static_cast<std::size_t>(wiring_.grid_height) * static_cast<std::size_t>(wiring_.grid_width);
    Tensor logits =
        Tensor::empty(OV2VSS_FLOAT32, {static_cast<std::int64_t>(all), wiring_.grid_height, wiring_.grid_width});
    std::size_t begin = 0;
    for (const std::size_t size : sizes) {
        auto inputs = shared;
        const auto count = static_cast<std::int64_t>(size);
        inputs.emplace_back(wiring_.words, Tensor::of(words.floats() + begin * width, OV2VSS_FLOAT32,
                                                      {count, static_cast<std::int64_t>(width)}));
        run("decoder", static_cast<int>(size), inputs,
            {{wiring_.logits, Tensor::of(logits.floats() + begin * plane, OV2VSS_FLOAT32,
                                         {count, wiring_.grid_height, wiring_.grid_width})}});
        begin += size;
    }
    logits.shape[0] = static_cast<std::int64_t>(rows);
    return logits;
}

Tensor Engine::decode_chunks(const Tensors& features, const Tensors& guidance, const std::vector<float>& embeddings,
                             std::size_t rows, std::size_t chunk) {
    const std::size_t width = static_cast<std::size_t>(manifest().embed_dim);
    Tensor words = Tensor::of(embeddings.data(), OV2VSS_FLOAT32,
                              {static_cast<std::int64_t>(rows), static_cast<std::int64_t>(width)});
    const std::string graph = parts_ ? kClassHead : "decoder";
    const std::string& input = parts_ ? wiring_.refined : wiring_.words;
    // Rows [begin, end) of an array whose first axis is the classes.
    auto part = [](const Tensor& whole, std::size_t begin, std::size_t end) {
        Tensor view = whole;
        const std::size_t row = whole.bytes() / static_cast<std::size_t>(whole.shape[0]);
        view.data = std::shared_ptr<void>(whole.data, static_cast<char*>(whole.data.get()) + begin * row);
        view.shape[0] = static_cast<std::int64_t>(end - begin);
        return view;
    };
    if (parts_) {
        std::vector<std::int64_t> shape = variant_->graphs.at(kRefinement).outputs[0].shape;
        shape[0] = static_cast<std::int64_t>(rows);
        Tensor refined = Tensor::empty(OV2VSS_FLOAT32, shape);
        const auto starts = even_chunks(rows, kRefined);
        for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
            auto inputs = given(wiring_.refinement, guidance, features);
            inputs.emplace_back(wiring_.words, part(words, starts[i], starts[i + 1]));
            run(kRefinement, 0, inputs, {{wiring_.refined, part(refined, starts[i], starts[i + 1])}});
        }
        words = refined;
    }
    const auto shared = given(parts_ ? wiring_.head : wiring_.decoder, guidance, features);
    Tensor logits =
        Tensor::empty(OV2VSS_FLOAT32, {static_cast<std::int64_t>(rows), wiring_.grid_height, wiring_.grid_width});
    const std::string output = variant_->graphs.at(graph).outputs[0].name;
    const auto starts = even_chunks(rows, chunk);
    for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
        auto inputs = shared;
        inputs.emplace_back(input, part(words, starts[i], starts[i + 1]));
        run(graph, 0, inputs, {{output, part(logits, starts[i], starts[i + 1])}});
    }
    return logits;
}

std::vector<float> Engine::encode_text(const std::vector<std::string>& texts) {
    const std::size_t width = static_cast<std::size_t>(manifest().embed_dim);
    const std::lock_guard<std::mutex> held(text_lock_);
    std::vector<std::string> fresh;
    std::unordered_map<std::string, std::vector<float>> known;
    for (const std::string& text : texts) {
        if (known.count(text)) continue;
        const auto place = text_places_.find(text);
        if (place == text_places_.end()) fresh.push_back(text);
        known[text] = place == text_places_.end() ? std::vector<float>() : place->second->second;
    }
    if (!fresh.empty()) {
        const std::vector<float> encoded = encode_new(fresh);
        for (std::size_t i = 0; i < fresh.size(); ++i)
            known[fresh[i]].assign(encoded.begin() + static_cast<std::ptrdiff_t>(i * width),
                                   encoded.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
    }
    std::vector<float> found;
    found.reserve(texts.size() * width);
    for (const std::string& text : texts) {
        const std::vector<float>& vector = known[text];
        found.insert(found.end(), vector.begin(), vector.end());
        const auto place = text_places_.find(text);
        if (place != text_places_.end()) {
            texts_.splice(texts_.end(), texts_, place->second);
        } else {
            texts_.emplace_back(text, vector);
            text_places_[text] = std::prev(texts_.end());
        }
    }
    while (texts_.size() > kTexts) {
        text_places_.erase(texts_.front().first);
        texts_.pop_front();
    }
    return found;
}

std::vector<float> Engine::encode_new(const std::vector<std::string>& texts) {
    if (!tokenizer_) {
        const FileInfo& info = manifest().tokenizer;
        tokenizer_ = Tokenizer::read(bundle_.read(info), bundle_.folder() + "/" + info.file);
    }
    std::vector<std::vector<std::int64_t>> ids;
    std::size_t longest = 1;
    for (const std::string& text : texts) {
        ids.push_back(tokenizer_->encode(text));
        longest = std::max(longest, ids.back().size());
    }
    const auto count = static_cast<std::int64_t>(texts.size()), length = static_cast<std::int64_t>(longest);
    Tensor tokens = Tensor::empty(OV2VSS_INT64, {count, length}), mask = Tensor::empty(OV2VSS_INT64, {count, length});
    auto *token = static_cast<std::int64_t*>(tokens.data.get()), *here = static_cast<std::int64_t*>(mask.data.get());
    for (const auto& row : ids) {
        for (std::size_t i = 0; i < longest; ++i) {
            *token++ = i < row.size() ? row[i] : tokenizer_->padding();
            *here++ = i < row.size() ? 1 : 0;
        }
    }
    std::vector<std::pair<std::string, Tensor>> inputs = {{wiring_.tokens, tokens}};
    if (!wiring_.mask.empty()) inputs.emplace_back(wiring_.mask, mask);
    std::vector<float> found(texts.size() * static_cast<std::size_t>(manifest().embed_dim));
    run("text", 0, inputs,
        {{wiring_.embeddings, Tensor::of(found.data(), OV2VSS_FLOAT32, {count, manifest().embed_dim})}});
    return found;
}

}  // namespace ov2vss
