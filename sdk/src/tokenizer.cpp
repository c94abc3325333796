#include "tokenizer.h"

#include <functional>
#include <stdexcept>

#include "error.h"
#include "json.h"
#include "unicode.h"

namespace ov2vss {

namespace {

// Calls `word` with every added token of a text and `rest` with what lies between them: the leftmost counts, of several
// at one place the longest.
template <typename AddedTokens>
void split(const AddedTokens& added, std::u32string_view text, const std::function<void(std::int64_t)>& word,
           const std::function<void(std::u32string_view)>& rest) {
    std::size_t begin = 0;
    for (std::size_t at = 0; at < text.size();) {
        std::size_t length = 0;
        std::int64_t id = 0;
        for (const auto& token : added)
            if (token.text.size() > length && text.substr(at, token.text.size()) == token.text) {
                length = token.text.size();
                id = token.id;
            }
        if (!length) {
            ++at;
            continue;
        }
        if (at > begin) rest(text.substr(begin, at - begin));
        word(id);
        begin = at += length;
    }
    if (begin < text.size()) rest(text.substr(begin));
}

}  // namespace

std::vector<std::int64_t> Tokenizer::encode(std::string_view utf8) const {
    const std::u32string text = code_points(utf8);
    std::vector<std::int64_t> ids;
    const auto push = [&](std::int64_t id) { ids.push_back(id); };
    split(raw_, text, push, [&](std::u32string_view part) {
        const std::u32string clean = normalized(part);
        split(inner_, clean, push, [&](std::u32string_view words) { add_words(words, ids); });
    });
    const std::size_t around = before_.size() + after_.size();
    if (longest_ && ids.size() + around > longest_) ids.resize(longest_ > around ? longest_ - around : 0);
    std::vector<std::int64_t> found = before_;
    found.insert(found.end(), ids.begin(), ids.end());
    found.insert(found.end(), after_.begin(), after_.end());
    return found;
}

namespace {

// What both tokenizers have in common.
struct Common {
    std::vector<std::pair<std::u32string, std::int64_t>> raw, inner;
    std::vector<std::int64_t> before, after;
    std::size_t longest = 0;
    std::int64_t padding = 0;
};

Common common_of(const Json& document) {
    Common found;
    if (const Json* truncation = document.find("truncation"); truncation && !truncation->is(Json::Kind::null)) {
        if (truncation->at("direction").text() != "Right")
            throw std::invalid_argument("truncation is not to the right");
        const std::int64_t longest = truncation->at("max_length").integer();
        if (longest < 1 || longest > 1'000'000) throw std::invalid_argument("truncation has no length");
        found.longest = static_cast<std::size_t>(longest);
    }
    if (const Json* padding = document.find("padding"); padding && !padding->is(Json::Kind::null)) {
        const Json* multiple = padding->find("pad_to_multiple_of");
        if (!padding->at("strategy").is(Json::Kind::text) || padding->at("strategy").text() != "BatchLongest" ||
            padding->at("direction").text() != "Right" || (multiple && !multiple->is(Json::Kind::null)))
            throw std::invalid_argument("padding is not to the longest of a batch");
        found.padding = padding->at("pad_id").integer();
    }
    for (const Json& token : document.at("added_tokens").list()) {
        for (const char* option : {"single_word", "lstrip", "rstrip"})
            if (token.at(option).boolean()) throw std::invalid_argument(std::string("added tokens with ") + option);
        auto& where = token.at("normalized").boolean() ? found.inner : found.raw;
        where.emplace_back(code_points(token.at("content").text()), token.at("id").integer());
        if (where.back().first.empty()) throw std::invalid_argument("an added token is empty");
    }
    if (const Json* post = document.find("post_processor"); post && !post->is(Json::Kind::null)) {
        if (post->at("type").text() != "TemplateProcessing")
            throw std::invalid_argument("post-processor " + post->at("type").text());
        bool text = false;
        for (const Json& part : post->at("single").list()) {
            if (part.find("Sequence")) {
                if (text) throw std::invalid_argument("a template with two texts");
                text = true;
                continue;
            }
            const std::string& name = part.at("SpecialToken").at("id").text();
            for (const Json& id : post->at("special_tokens").at(name).at("ids").list())
                (text ? found.after : found.before).push_back(id.integer());
        }
    }
    return found;
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::read(std::string_view document, const std::string& where) {
    const char* const remedy =
        "this library knows BERT's WordPiece and CLIP's byte-pair encoding; use the Python runtime";
    try {
        const Json data = Json::parse(document);
        const Json& type = data.at("model").at("type");
        std::unique_ptr<Tokenizer> made;
        if (type.text() == "WordPiece")
            made = read_wordpiece(data);
        else if (type.text() == "BPE")
            made = read_clip(data);
        else
            throw bundle_error(where + " is a tokenizer of the kind " + type.text(), remedy);
        const Common common = common_of(data);
        for (const auto& [text, id] : common.raw) made->raw_.push_back({text, id});
        for (const auto& [text, id] : common.inner) made->inner_.push_back({made->normalized(text), id});
        made->before_ = common.before;
        made->after_ = common.after;
        made->longest_ = common.longest;
        made->padding_ = common.padding;
        return made;
    } catch (const std::invalid_argument& error) {
        throw bundle_error(where + " is a tokenizer that is not known (" + error.what() + ")", remedy);
    }
}

}  // namespace ov2vss
