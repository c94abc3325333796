// Words: how they are written, and their embeddings.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bundle.h"
#include "engine.h"
#include "ov2vss/ov2vss.h"

namespace ov2vss {

// Classes of a command line ("road; car, automobile"), checked as the Python runtime checks them.
Entries parse_words(std::string_view text, const std::string& where);
// Classes of a file: lines, or JSON.
Entries read_words(const std::string& path);

// Classes with an embedding a row; it never changes.
struct Vocabulary {
    std::shared_ptr<Engine> engine;
    std::vector<std::string> names;
    std::vector<int> class_of;  // of every row, -1 for background
    std::vector<float> shift;   // added to the logits of every row; empty where nothing is
    std::vector<float> embeddings;
    std::size_t width = 0;

    std::size_t rows() const { return class_of.size(); }
    int label_bytes() const { return names.size() <= 254 ? 1 : 2; }
    int unknown() const { return label_bytes() == 1 ? 255 : 65535; }

    static std::shared_ptr<Vocabulary> make(const std::shared_ptr<Engine>& engine, const Entries& entries,
                                            const ov2vss_vocabulary_options& options);
    static std::shared_ptr<Vocabulary> given(const std::shared_ptr<Engine>& engine, Entries names,
                                             const float* embeddings, std::size_t width);

private:
    void shift_trained(const Entries& rows);
};

// Unit vectors [entries, width]: the mean over synonyms and prompts, normalised again.
std::vector<float> class_embeddings(Engine& engine, const Entries& entries);

}  // namespace ov2vss
