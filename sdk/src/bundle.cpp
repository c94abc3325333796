#include "bundle.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <stdexcept>

#include "error.h"
#include "json.h"
#include "outside_weights.h"
#include "safetensors.h"
#include "sha256.h"
#include "tensor.h"
#include "unicode.h"

namespace ov2vss {

namespace {

constexpr std::int64_t kLargestManifest = 8 << 20;
const char* const kExport = "export the bundle again";

int type_of(const std::string& name) {
    if (name == "float32") return OV2VSS_FLOAT32;
    if (name == "int64") return OV2VSS_INT64;
    if (name == "uint8") return OV2VSS_UINT8;
    if (name == "float16") return OV2VSS_FLOAT16;
    throw std::invalid_argument("type " + name + " is not known");
}

int small(const Json& value, const char* what, std::int64_t lowest) {
    const std::int64_t found = value.integer();
    if (found < lowest || found > 1'000'000)
        throw std::invalid_argument(std::string(what) + " is " + std::to_string(found));
    return static_cast<int>(found);
}

std::vector<std::int64_t> shape_of(const Json& value) {
    std::vector<std::int64_t> shape;
    for (const Json& axis : value.list()) {
        if (axis.is(Json::Kind::text))
            shape.push_back(-1);
        else
            shape.push_back(small(axis, "an axis", 0));
    }
    if (shape.size() > OV2VSS_MAX_RANK) throw std::invalid_argument("a tensor has too many axes");
    std::int64_t count = 1;
    for (const std::int64_t side : shape) {
        count *= std::max<std::int64_t>(side, 1);
        if (count > (std::int64_t{1} << 33)) throw std::invalid_argument("a tensor is too large");
    }
    return shape;
}

std::vector<TensorInfo> tensors_of(const Json& value) {
    std::vector<TensorInfo> found;
    for (const Json& item : value.list())
        found.push_back({item.at("name").text(), type_of(item.at("dtype").text()), shape_of(item.at("shape"))});
    return found;
}

void file_of(const Json& value, FileInfo& info) {
    info.file = value.at("file").text();
    info.sha256 = value.at("sha256").text();
    if (info.file.empty() || info.file == "." || info.file == ".." ||
        info.file.find_first_of(std::string("/\\:\0", 4)) != std::string::npos)
        throw std::invalid_argument("'" + info.file + "' is not a plain file name");
    if (info.sha256.size() != 64 || info.sha256.find_first_not_of("0123456789abcdef") != std::string::npos)
        throw std::invalid_argument("the sha256 of " + info.file + " is none");
}

// Words between commas, without regard to case.
void add_words(const std::string& line, std::set<std::u32string>& words) {
    const std::u32string text = code_points(line);
    std::size_t begin = 0;
    while (begin <= text.size()) {
        const std::size_t end = std::min(text.find(U',', begin), text.size());
        const std::u32string_view word = stripped(std::u32string_view(text).substr(begin, end - begin));
        if (!word.empty()) words.insert(case_folded(word));
        begin = end + 1;
    }
}

Entries entries_of(const Json& value) {
    Entries found;
    for (const Json& item : value.list()) {
        std::vector<std::string> entry;
        for (const Json& word : item.list()) entry.push_back(word.text());
        if (entry.empty()) throw std::invalid_argument("an entry of the vocabulary is empty");
        found.push_back(std::move(entry));
    }
    if (found.empty()) throw std::invalid_argument("a vocabulary is empty");
    return found;
}

Smoothing smoothing_of(const Json& temporal) {
    Smoothing found;
    auto take = [&](const char* name, double& value) {
        if (const Json* given = temporal.find(name)) value = given->number();
    };
    take("share", found.share);
    take("lean", found.lean);
    take("sure", found.sure);
    if (!(found.share >= 0 && found.share < 1 && found.lean >= 0 && found.sure > 0))
        throw std::invalid_argument("temporal: share must be 0 to below 1, lean at least 0, sure above 0");
    return found;
}

void read_manifest(const Json& data, Manifest& m) {
    m.name = data.at("name").text();
    if (const Json* kind = data.find("kind")) m.kind = kind->text();
    for (const auto& [name, value] : data.at("variants").object()) {
        Variant variant;
        variant.name = name;
        variant.precision = value.at("precision").text();
        for (const Json& engine : value.at("engines").list()) variant.engines.push_back(engine.text());
        for (const auto& [graph, info] : value.at("graphs").object()) {
            GraphInfo& made = variant.graphs[graph];
            file_of(info, made);
            made.inputs = tensors_of(info.at("inputs"));
            made.outputs = tensors_of(info.at("outputs"));
        }
        for (const char* needed : {"text", "backbone", "decoder"})
            if (!variant.graphs.count(needed)) throw std::invalid_argument(name + " has no graph " + needed);
        m.variants.push_back(std::move(variant));
    }
    if (m.variants.empty()) throw std::invalid_argument("there are no variants");
    const Json* state = data.find("state");
    if (state && !state->is(Json::Kind::null)) {
        StateInfo made{state->at("input").text(), state->at("output").text(), shape_of(state->at("shape")),
                       OV2VSS_FLOAT32, small(state->at("warmup"), "warmup", 0)};
        if (const Json* type = state->find("dtype")) made.type = type_of(type->text());
        if (std::count(made.shape.begin(), made.shape.end(), -1))
            throw std::invalid_argument("the state has no fixed shape");
        m.state = std::move(made);
    }
    if (const Json* distant = data.find("distant")) {
        m.distant.clear();
        for (const Json& name : distant->list()) m.distant.push_back(name.text());
    }
    m.references = small(data.at("references"), "references", 1);
    m.gap = small(data.at("gap"), "gap", 1);
    const Json& preprocess = data.at("preprocess");
    if (preprocess.at("colour_order").text() != "RGB") throw std::invalid_argument("colour_order is not RGB");
    const auto& size = preprocess.at("size").list();
    if (size.size() != 2) throw std::invalid_argument("size is not two numbers");
    m.height = small(size[0], "size", 1);
    m.width = small(size[1], "size", 1);
    if (const Json* dense = data.find("dense"))
        if (const Json* output = dense->find("output")) m.dense = output->text();
    if (const Json* cut = data.find("cut")) {
        if (cut->is(Json::Kind::null)) {
            m.cut.reset();
        } else {
            if (const Json* output = cut->find("output")) m.cut->output = output->text();
            if (const Json* level = cut->find("level")) m.cut->level = small(*level, "cut.level", 0);
            if (const Json* threshold = cut->find("threshold")) m.cut->threshold = threshold->number();
        }
    }
    const Json* temperature = data.find("temperature");
    if (temperature && !temperature->is(Json::Kind::null) && temperature->number() != 0)
        m.temperature = temperature->number();
    if (const Json* below = data.find("unknown_below")) m.unknown_below = below->number();
    if (const Json* temporal = data.find("temporal")) {
        const Json* method = temporal->find("method");
        m.blends = method && method->text() == "affinity";
        if (method && !m.blends && method->text() != "flow on logits")
            throw std::invalid_argument("temporal: the bundle propagates by '" + method->text() +
                                        "', which is not known");
        if (!m.blends) m.smoothing = smoothing_of(*temporal);
    }
    file_of(data.at("tokenizer"), m.tokenizer);
    file_of(data.at("vocabulary_cache"), m.vocabulary_cache);
    const Json& vocabulary = data.at("vocabulary");
    m.entries = entries_of(vocabulary.at("entries"));
    for (const Json& text : vocabulary.at("templates").list()) m.templates.push_back(text.text());
    if (m.templates.empty()) throw std::invalid_argument("there are no templates");
    m.embed_dim = small(vocabulary.at("embed_dim"), "embed_dim", 1);
    if (const Json* added = vocabulary.find("added"))
        for (const auto& [name, entries] : added->object()) m.added.emplace_back(name, entries_of(entries));
    if (const Json* synonyms = vocabulary.find("synonyms")) m.synonyms_max = synonyms->text() == "max";
    if (const Json* offset = data.find("class_offset")) m.class_offset = offset->number();
    if (const Json* source = data.find("source")) {
        if (const Json* trained = source->find("trained_classes"))
            for (const Json& line : trained->list()) add_words(line.text(), m.trained);
        if (const Json* model = source->find("model"))
            if (const Json* heads = model->find("heads"))
                if (heads->is(Json::Kind::integer)) m.heads = small(*heads, "heads", 0);
    }
}

std::string content_of(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw bundle_error(path + " cannot be read", "copy the bundle again");
    stream.seekg(0, std::ios::end);
    std::string content(static_cast<std::size_t>(std::max<std::streamoff>(stream.tellg(), 0)), '\0');
    stream.seekg(0);
    if (!stream.read(content.data(), static_cast<std::streamsize>(content.size())))
        throw bundle_error(path + " cannot be read", "copy the bundle again");
    return content;
}

bool is_file(const std::string& path) {
    struct stat found{};
    return lstat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode);
}

}  // namespace

Manifest Manifest::parse(std::string_view document, const std::string& where) {
    Json data;
    try {
        data = Json::parse(document);
    } catch (const std::invalid_argument& error) {
        throw bundle_error(where + " cannot be read (" + error.what() + ")", kExport);
    }
    Manifest found;
    const Json* format = data.find("format_version");
    const bool known = format && format->is(Json::Kind::integer) && format->integer() >= kLowestFormat &&
                       format->integer() <= kHighestFormat;
    if (!known)
        throw bundle_error(
            where + " has " +
                (format && format->is(Json::Kind::integer) ? "format version " + std::to_string(format->integer())
                                                           : std::string("no format version")) +
                ", this library reads 2 and 3",
            "export the bundle with the same release of ov2vss");
    found.format = static_cast<int>(format->integer());
    try {
        read_manifest(data, found);
    } catch (const std::invalid_argument& error) {
        throw bundle_error(where + ": " + error.what(), kExport);
    }
    return found;
}

Bundle Bundle::open(const std::string& folder) {
    Bundle bundle;
    bundle.folder_ = folder;
    const std::string path = folder + "/manifest.json";
    struct stat found{};
    if (stat(folder.c_str(), &found) != 0 || !S_ISDIR(found.st_mode))
        throw bundle_error("bundle '" + folder + "' is not a folder", "give the folder of ov2vss-export");
    if (stat(path.c_str(), &found) != 0)
        throw bundle_error(folder + " is not a bundle: it has no manifest.json", "give the folder of ov2vss-export");
    if (found.st_size > kLargestManifest)
        throw bundle_error(path + " has " + std::to_string(found.st_size) + " bytes",
                           "a manifest is smaller; " + std::string(kExport));
    bundle.manifest_ = Manifest::parse(content_of(path), path);
    return bundle;
}

const Variant& Bundle::variant(const std::string& precision, const std::string& engine) const {
    std::string offered;
    for (const Variant& variant : manifest_.variants) {
        if (variant.precision == precision && std::count(variant.engines.begin(), variant.engines.end(), engine))
            return variant;
        offered += (offered.empty() ? "" : "; ") + variant.precision + " (";
        for (std::size_t i = 0; i < variant.engines.size(); ++i) offered += (i ? ", " : "") + variant.engines[i];
        offered += ")";
    }
    throw bundle_error("bundle " + folder_ + " has no precision '" + precision + "' for " + engine,
                       "it has: " + offered);
}

std::string Bundle::read(const FileInfo& info) const {
    const std::string path = folder_ + "/" + info.file;
    if (!is_file(path))
        throw bundle_error("bundle " + folder_ + ": " + info.file + " is missing", "copy the whole folder");
    std::string content = content_of(path);
    if (sha256(content.data(), content.size()) != info.sha256)
        throw bundle_error(
            "bundle " + folder_ + ": " + info.file + " is not the file that was exported (sha256 differs)",
            "do not use it; copy the bundle again or export it again");
    return content;
}

std::string Bundle::graph(const Variant& variant, const std::string& graph) const {
    const GraphInfo& info = variant.graphs.at(graph);
    std::string content = read(info);
    bool outside = false;
    try {
        outside = has_outside_weights(content);
    } catch (const std::invalid_argument& error) {
        throw bundle_error("bundle " + folder_ + ": " + info.file + " is no ONNX graph (" + error.what() + ")", kExport);
    }
    if (outside)
        throw bundle_error(
            "bundle " + folder_ + ": " + info.file + " keeps weights in other files, which no hash covers",
            "export it with its weights inside");
    return content;
}

std::string Bundle::vocabulary_key(const Entries& entries, const Variant& variant) const {
    auto list = [](const std::vector<std::string>& words) {
        std::string text = "[";
        for (std::size_t i = 0; i < words.size(); ++i) text += (i ? ", " : "") + json_quoted(words[i]);
        return text + "]";
    };
    std::string text = "[[";
    for (std::size_t i = 0; i < entries.size(); ++i) text += (i ? ", " : "") + list(entries[i]);
    text += "], " + list(manifest_.templates) + ", " + json_quoted(variant.graphs.at("text").sha256) + ", " +
            json_quoted(manifest_.tokenizer.sha256) + "]";
    return sha256(text.data(), text.size());
}

std::vector<float> Bundle::cached_embeddings(const Entries& entries, const Variant& variant) const {
    const std::string path = folder_ + "/" + manifest_.vocabulary_cache.file;
    const std::string content = read(manifest_.vocabulary_cache);
    std::vector<float> found;
    try {
        const Safetensors tensors = read_safetensors(content);
        const auto stored = tensors.arrays.find(vocabulary_key(entries, variant));
        if (stored == tensors.arrays.end()) return found;
        const std::vector<std::int64_t> shape = {static_cast<std::int64_t>(entries.size()), manifest_.embed_dim};
        if (stored->second.type != "F32" || stored->second.shape != shape)
            throw std::invalid_argument("its embeddings have another shape");
        found.resize(entries.size() * static_cast<std::size_t>(manifest_.embed_dim));
        std::memcpy(found.data(), stored->second.data, stored->second.bytes);
    } catch (const std::invalid_argument& error) {
        throw bundle_error(path + " is not a safetensors file (" + error.what() + ")", kExport);
    }
    return found;
}

}  // namespace ov2vss
