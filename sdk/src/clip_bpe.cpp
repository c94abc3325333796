// CLIP's tokenizer: repairs, normal form, lower case; words and signs; pairs of bytes joined by rank.
#include <array>
#include <limits>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "characters.h"
#include "json.h"
#include "tokenizer.h"
#include "unicode.h"

namespace ov2vss {

namespace {

const char* const kPieces = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";

// One thing that is done to a text before it is split.
struct Change {
    enum class Kind { replace, replace_any, blanks, compose, strip, lower } kind = Kind::compose;
    std::u32string from, to;
};

// GPT-2's letters for bytes: those that can be seen are themselves, the others follow from 256 on.
std::array<std::string, 256> byte_letters() {
    std::array<std::string, 256> letters;
    char32_t next = 256;
    for (char32_t byte = 0; byte < 256; ++byte) {
        const bool seen = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
        append_utf8(letters[byte], seen ? byte : next++);
    }
    return letters;
}

class ClipBpe : public Tokenizer {
public:
    explicit ClipBpe(const Json& document) : letters_(byte_letters()) {
        const Json& model = document.at("model");
        suffix_ = model.at("end_of_word_suffix").text();
        const Json* prefix = model.find("continuing_subword_prefix");
        if (prefix && prefix->is(Json::Kind::text) && !prefix->text().empty())
            throw std::invalid_argument("a prefix of pieces");
        for (const char* option : {"dropout", "unk_token"})
            if (const Json* value = model.find(option); value && !value->is(Json::Kind::null))
                throw std::invalid_argument(std::string("the option ") + option);
        for (const char* option : {"byte_fallback", "ignore_merges"})
            if (const Json* value = model.find(option); value && value->boolean())
                throw std::invalid_argument(std::string("the option ") + option);
        for (const auto& [piece, id] : model.at("vocab").object()) ids_[piece] = id.integer();
        std::int64_t rank = 0;
        for (const Json& merge : model.at("merges").list()) {
            std::string first, second;
            if (merge.is(Json::Kind::list)) {
                if (merge.list().size() != 2) throw std::invalid_argument("a merge is no pair");
                first = merge.list()[0].text();
                second = merge.list()[1].text();
            } else {
                const std::size_t blank = merge.text().find(' ');
                if (blank == std::string::npos) throw std::invalid_argument("a merge is no pair");
                first = merge.text().substr(0, blank);
                second = merge.text().substr(blank + 1);
            }
            const auto a = ids_.find(first), b = ids_.find(second), both = ids_.find(first + second);
            if (a == ids_.end() || b == ids_.end() || both == ids_.end())
                throw std::invalid_argument("a merge is not in the vocabulary");
            merges_[key(a->second, b->second)] = {rank++, both->second};
        }
        add_change(document.at("normalizer"), 0);
        const Json& pre = document.at("pre_tokenizer");
        if (pre.at("type").text() != "Sequence" || pre.at("pretokenizers").list().size() != 2)
            throw std::invalid_argument("pre-tokenizer " + pre.at("type").text());
        const Json &split = pre.at("pretokenizers").list()[0], &bytes = pre.at("pretokenizers").list()[1];
        const Json* regex = split.at("type").text() == "Split" ? split.at("pattern").find("Regex") : nullptr;
        if (!regex || regex->text() != kPieces || split.at("behavior").text() != "Removed" ||
            !split.at("invert").boolean())
            throw std::invalid_argument("a pre-tokenizer that is not CLIP's");
        if (bytes.at("type").text() != "ByteLevel" || bytes.at("add_prefix_space").boolean() ||
            bytes.at("use_regex").boolean())
            throw std::invalid_argument("a pre-tokenizer that is not CLIP's");
    }

protected:
    std::u32string normalized(std::u32string_view given) const override {
        std::u32string text(given);
        for (const Change& change : changes_) {
            std::u32string found;
            switch (change.kind) {
                case Change::Kind::replace:
                    if (text.find(change.from) == std::u32string::npos) continue;
                    for (std::size_t at = 0; at < text.size();) {
                        if (text.compare(at, change.from.size(), change.from) == 0) {
                            found += change.to;
                            at += change.from.size();
                        } else {
                            found += text[at++];
                        }
                    }
                    break;
                case Change::Kind::replace_any:
                    for (const char32_t c : text) {
                        if (change.from.find(c) != std::u32string::npos)
                            found += change.to;
                        else
                            found += c;
                    }
                    break;
                case Change::Kind::blanks:
                    for (std::size_t at = 0; at < text.size(); ++at) {
                        if (!hf::is_white(text[at]))
                            found += text[at];
                        else if (at == 0 || !hf::is_white(text[at - 1]))
                            found += change.to;
                    }
                    break;
                case Change::Kind::compose: found = hf::composed(text); break;
                case Change::Kind::strip: {
                    std::size_t begin = 0, end = text.size();
                    while (begin < end && hf::is_white(text[begin])) ++begin;
                    while (end > begin && hf::is_white(text[end - 1])) --end;
                    found = text.substr(begin, end - begin);
                    break;
                }
                case Change::Kind::lower:
                    for (const char32_t c : text) hf::append_lower(found, c);
                    break;
            }
            text = std::move(found);
        }
        return text;
    }

    void add_words(std::u32string_view text, std::vector<std::int64_t>& ids) const override {
        for (std::size_t at = 0; at < text.size();) {
            const std::size_t length = piece(text.substr(at));
            if (length) add_word(to_utf8(text.substr(at, length)), ids);
            at += length ? length : 1;
        }
    }

private:
    static std::uint64_t key(std::int64_t first, std::int64_t second) {
        return static_cast<std::uint64_t>(first) << 32 | static_cast<std::uint32_t>(second);
    }

    void add_change(const Json& normalizer, int depth) {
        if (depth > 4) throw std::invalid_argument("a normalizer within a normalizer");
        const std::string& type = normalizer.at("type").text();
        if (type == "Sequence") {
            for (const Json& part : normalizer.at("normalizers").list()) add_change(part, depth + 1);
        } else if (type == "NFC") {
            changes_.push_back({Change::Kind::compose, {}, {}});
        } else if (type == "Lowercase") {
            changes_.push_back({Change::Kind::lower, {}, {}});
        } else if (type == "Strip") {
            if (!normalizer.at("strip_left").boolean() || !normalizer.at("strip_right").boolean())
                throw std::invalid_argument("normalizer Strip of one side");
            changes_.push_back({Change::Kind::strip, {}, {}});
        } else if (type == "Replace") {
            const std::u32string to = code_points(normalizer.at("content").text());
            const Json& pattern = normalizer.at("pattern");
            if (const Json* exact = pattern.find("String")) {
                changes_.push_back({Change::Kind::replace, code_points(exact->text()), to});
                if (changes_.back().from.empty()) throw std::invalid_argument("a normalizer that replaces nothing");
                return;
            }
            const std::u32string regex = code_points(pattern.at("Regex").text());
            const bool any = regex.size() > 2 && regex.front() == U'[' && regex.back() == U']' &&
                             regex.find_first_of(U"[]^-\\", 1) == regex.size() - 1;
            if (regex == U"\\s+")
                changes_.push_back({Change::Kind::blanks, {}, to});
            else if (any)
                changes_.push_back({Change::Kind::replace_any, regex.substr(1, regex.size() - 2), to});
            else
                throw std::invalid_argument("a normalizer with the pattern " + pattern.at("Regex").text());
        } else {
            throw std::invalid_argument("normalizer " + type);
        }
    }

    // Length of the piece that a text begins with; 0 where it begins with a blank.
    static std::size_t piece(std::u32string_view text) {
        for (const std::u32string_view ending : {U"'s", U"'t", U"'re", U"'ve", U"'m", U"'ll", U"'d"})
            if (text.substr(0, ending.size()) == ending) return ending.size();
        const char32_t first = text.front();
        if (hf::is_white(first)) return 0;
        if (hf::is_number(first)) return 1;
        const bool letter = hf::is_letter(first);
        std::size_t length = 1;
        for (; length < text.size(); ++length) {
            const char32_t c = text[length];
            if (letter ? !hf::is_letter(c) : hf::is_white(c) || hf::is_letter(c) || hf::is_number(c)) break;
        }
        return length;
    }

    void add_word(const std::string& word, std::vector<std::int64_t>& ids) const {
        std::vector<std::int64_t> parts;
        for (std::size_t at = 0; at < word.size(); ++at) {
            std::string letter = letters_[static_cast<unsigned char>(word[at])];
            if (at + 1 == word.size()) letter += suffix_;
            if (const auto found = ids_.find(letter); found != ids_.end()) parts.push_back(found->second);
        }
        while (parts.size() > 1) {
            std::size_t best = 0;
            std::pair<std::int64_t, std::int64_t> chosen{std::numeric_limits<std::int64_t>::max(), 0};
            for (std::size_t at = 0; at + 1 < parts.size(); ++at) {
                const auto found = merges_.find(key(parts[at], parts[at + 1]));
                if (found != merges_.end() && found->second.first < chosen.first) {
                    best = at;
                    chosen = found->second;
                }
            }
            if (chosen.first == std::numeric_limits<std::int64_t>::max()) break;
            parts[best] = chosen.second;
            parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
        }
        ids.insert(ids.end(), parts.begin(), parts.end());
    }

    std::array<std::string, 256> letters_;
    std::unordered_map<std::string, std::int64_t> ids_;
    std::unordered_map<std::uint64_t, std::pair<std::int64_t, std::int64_t>> merges_;  // pair -> rank, joined
    std::string suffix_;
    std::vector<Change> changes_;
};

}  // namespace

std::unique_ptr<Tokenizer> read_clip(const Json& document) {
    return std::make_unique<ClipBpe>(document);
}

}  // namespace ov2vss
