// BERT's tokenizer: clean, split at blanks and punctuation, then the longest pieces that the vocabulary has.
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "characters.h"
#include "json.h"
#include "tokenizer.h"
#include "unicode.h"

namespace ov2vss {

namespace {

bool is_chinese(char32_t c) {
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

class WordPiece : public Tokenizer {
public:
    explicit WordPiece(const Json& document) {
        const Json& model = document.at("model");
        const std::int64_t longest = model.at("max_input_chars_per_word").integer();
        if (longest < 1 || longest > 1'000'000) throw std::invalid_argument("max_input_chars_per_word");
        longest_word_ = static_cast<std::size_t>(longest);
        prefix_ = model.at("continuing_subword_prefix").text();
        for (const auto& [piece, id] : model.at("vocab").object()) pieces_[piece] = id.integer();
        const auto unknown = pieces_.find(model.at("unk_token").text());
        if (unknown == pieces_.end()) throw std::invalid_argument("the unknown token is not in the vocabulary");
        unknown_ = unknown->second;
        const Json& normalizer = document.at("normalizer");
        if (normalizer.at("type").text() != "BertNormalizer")
            throw std::invalid_argument("normalizer " + normalizer.at("type").text());
        cleans_ = normalizer.at("clean_text").boolean();
        splits_chinese_ = normalizer.at("handle_chinese_chars").boolean();
        lowers_ = normalizer.at("lowercase").boolean();
        const Json* accents = normalizer.find("strip_accents");
        strips_ = accents && accents->is(Json::Kind::boolean) ? accents->boolean() : lowers_;
        if (document.at("pre_tokenizer").at("type").text() != "BertPreTokenizer")
            throw std::invalid_argument("pre-tokenizer " + document.at("pre_tokenizer").at("type").text());
    }

protected:
    std::u32string normalized(std::u32string_view text) const override {
        std::u32string found;
        for (char32_t c : text) {
            if (cleans_) {
                if (hf::is_removed(c)) continue;
                if (hf::is_blank(c)) c = U' ';
            }
            if (splits_chinese_ && is_chinese(c)) {
                found += U' ';
                found += c;
                found += U' ';
            } else {
                found += c;
            }
        }
        if (strips_) {
            std::u32string kept;
            for (const char32_t c : hf::decomposed(found))
                if (!hf::is_mark(c)) kept += c;
            found = std::move(kept);
        }
        if (lowers_) {
            std::u32string lowered;
            for (const char32_t c : found) hf::append_lower(lowered, c);
            found = std::move(lowered);
        }
        return found;
    }

    void add_words(std::u32string_view text, std::vector<std::int64_t>& ids) const override {
        std::size_t begin = 0;
        auto flush = [&](std::size_t end) {
            if (end > begin) add_word(text.substr(begin, end - begin), ids);
        };
        for (std::size_t at = 0; at < text.size(); ++at) {
            if (hf::is_white(text[at])) {
                flush(at);
                begin = at + 1;
            } else if (hf::is_punctuation(text[at])) {
                flush(at);
                add_word(text.substr(at, 1), ids);
                begin = at + 1;
            }
        }
        flush(text.size());
    }

private:
    void add_word(std::u32string_view word, std::vector<std::int64_t>& ids) const {
        if (word.size() > longest_word_) {
            ids.push_back(unknown_);
            return;
        }
        const std::size_t before = ids.size();
        for (std::size_t begin = 0; begin < word.size();) {
            std::size_t end = word.size();
            for (; end > begin; --end) {
                const std::string piece = (begin ? prefix_ : "") + to_utf8(word.substr(begin, end - begin));
                const auto found = pieces_.find(piece);
                if (found != pieces_.end()) {
                    ids.push_back(found->second);
                    break;
                }
            }
            if (end == begin) {
                ids.resize(before);
                ids.push_back(unknown_);
                return;
            }
            begin = end;
        }
    }

    std::unordered_map<std::string, std::int64_t> pieces_;
    std::string prefix_;
    std::int64_t unknown_ = 0;
    std::size_t longest_word_ = 100;
    bool cleans_ = true, splits_chinese_ = true, lowers_ = true, strips_ = true;
};

}  // namespace

std::unique_ptr<Tokenizer> read_wordpiece(const Json& document) {
    return std::make_unique<WordPiece>(document);
}

}  // namespace ov2vss
