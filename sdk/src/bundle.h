// A bundle: its manifest, and its files, each of which must have the hash that the manifest states.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ov2vss {

using Entries = std::vector<std::vector<std::string>>;

// An input or output of a graph; an axis of any length is -1.
struct TensorInfo {
    std::string name;
    int type = 0;
    std::vector<std::int64_t> shape;
};

struct FileInfo {
    std::string file, sha256;
};

struct GraphInfo : FileInfo {
    std::vector<TensorInfo> inputs, outputs;
};

struct Variant {
    std::string name, precision;
    std::vector<std::string> engines;
    std::map<std::string, GraphInfo> graphs;
};

struct StateInfo {
    std::string input, output;
    std::vector<std::int64_t> shape;
    int type = 0;
    int warmup = 0;
};

struct CutInfo {
    std::string output = "tokens";
    int level = 2;
    double threshold = 0.6;
};

struct Smoothing {
    double share = 0.85, lean = 2.0, sure = 3.0;
};

struct Manifest {
    int format = 0;
    std::string name, kind = "trained";
    std::vector<Variant> variants;
    std::optional<StateInfo> state;
    std::vector<std::string> distant = {"context"};
    int references = 1, gap = 1, height = 0, width = 0;
    std::string dense = "dense";
    std::optional<CutInfo> cut = CutInfo();
    double temperature = 40.0;
    double unknown_below = 0.0;
    double class_offset = 0.0;         // added to the logits of words that training saw:
    std::set<std::u32string> trained;  // those, with their case folded
    bool blends = false;  // the graphs propagate between frames themselves
    Smoothing smoothing;
    FileInfo tokenizer, vocabulary_cache;
    Entries entries;
    std::vector<std::pair<std::string, Entries>> added;
    std::vector<std::string> templates;
    int embed_dim = 0;
    bool synonyms_max = false;
    int heads = 0;  // of the text refinement; 0: unknown

    // Parses manifest.json; `where` names it in errors.
    static Manifest parse(std::string_view document, const std::string& where);
};

class Bundle {
public:
    // Reads the manifest of a folder; no other file is touched yet.
    static Bundle open(const std::string& folder);

    const Manifest& manifest() const { return manifest_; }
    const std::string& folder() const { return folder_; }

    // The variant that serves an engine at a precision.
    const Variant& variant(const std::string& precision, const std::string& engine) const;
    // Content of a file whose hash holds.
    std::string read(const FileInfo& info) const;
    // The same of a graph, which may hold no weights outside of itself.
    std::string graph(const Variant& variant, const std::string& graph) const;
    // Name of these words' embeddings in the cache.
    std::string vocabulary_key(const Entries& entries, const Variant& variant) const;
    // Stored embeddings of exactly these words, [entries, embed_dim]; empty where there are none.
    std::vector<float> cached_embeddings(const Entries& entries, const Variant& variant) const;

private:
    std::string folder_;
    Manifest manifest_;
};

constexpr int kLowestFormat = 2, kHighestFormat = 3;
// The decoder in two parts, where a variant has them.
inline const char* const kRefinement = "text_refinement";
inline const char* const kClassHead = "class_head";

}  // namespace ov2vss
