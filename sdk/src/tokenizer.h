// Tokenizers as Hugging Face's tokenizer.json describes them: BERT's WordPiece, and CLIP's byte-pair encoding.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ov2vss {

// Equal to Hugging Face's `tokenizers` to the last id. Thread-safe.
class Tokenizer {
public:
    virtual ~Tokenizer() = default;

    // Reads tokenizer.json; `where` names it in errors. What is neither of the two is refused by its name.
    static std::unique_ptr<Tokenizer> read(std::string_view document, const std::string& where);

    // Ids of a text with the template's around them, cut to the longest length, not padded.
    std::vector<std::int64_t> encode(std::string_view utf8) const;
    // The id that fills shorter texts of a batch up.
    std::int64_t padding() const { return padding_; }

protected:
    struct Added {
        std::u32string text;
        std::int64_t id = 0;
    };

    // What is done to a text between added tokens before and after those that are looked for in normalized text.
    virtual std::u32string normalized(std::u32string_view text) const = 0;
    virtual void add_words(std::u32string_view text, std::vector<std::int64_t>& ids) const = 0;

    std::vector<Added> raw_, inner_;  // looked for before and after normalization
    std::vector<std::int64_t> before_, after_;
    std::size_t longest_ = 0;  // 0: no limit
    std::int64_t padding_ = 0;
};

class Json;
std::unique_ptr<Tokenizer> read_wordpiece(const Json& document);
std::unique_ptr<Tokenizer> read_clip(const Json& document);

}  // namespace ov2vss
