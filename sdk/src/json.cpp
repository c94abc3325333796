#include "json.h"

#include <charconv>
#include <cmath>
#include <stdexcept>

#include "unicode.h"

namespace ov2vss {

namespace {

constexpr int kDeepest = 100;

const char* name_of(Json::Kind kind) {
    switch (kind) {
        case Json::Kind::null: return "null";
        case Json::Kind::boolean: return "a truth value";
        case Json::Kind::integer:
        case Json::Kind::real: return "a number";
        case Json::Kind::text: return "a text";
        case Json::Kind::list: return "a list";
        case Json::Kind::object: return "an object";
    }
    return "nothing";
}

[[noreturn]] void wrong(Json::Kind found, const char* wanted) {
    throw std::invalid_argument(std::string(name_of(found)) + " stands where " + wanted + " is expected");
}

}  // namespace

class JsonParser {
public:
    explicit JsonParser(std::string_view text) : text_(text) {}

    Json document() {
        Json value = this->value(0);
        space();
        if (at_ != text_.size()) fail("something follows the document");
        return value;
    }

private:
    [[noreturn]] void fail(const std::string& reason) const {
        throw std::invalid_argument(reason + " at byte " + std::to_string(at_));
    }
    void space() {
        while (at_ < text_.size()) {
            const char c = text_[at_];
            if (c != ' ' && c != '\t' && c != '\n' && c != '\r') break;
            ++at_;
        }
    }
    char peek() const {
        if (at_ >= text_.size()) fail("the document ends");
        return text_[at_];
    }
    void expect(std::string_view word) {
        if (text_.substr(at_, word.size()) != word) fail("no JSON");
        at_ += word.size();
    }

    Json value(int depth) {
        if (depth > kDeepest) fail("nested too deeply");
        space();
        Json found;
        switch (peek()) {
            case '{': object(found, depth); break;
            case '[': list(found, depth); break;
            case '"':
                found.kind_ = Json::Kind::text;
                found.text_ = quoted();
                break;
            case 't':
                expect("true");
                found.kind_ = Json::Kind::boolean;
                found.boolean_ = true;
                break;
            case 'f':
                expect("false");
                found.kind_ = Json::Kind::boolean;
                break;
            case 'n': expect("null"); break;
            default: number(found);
        }
        return found;
    }

    void object(Json& found, int depth) {
        found.kind_ = Json::Kind::object;
        ++at_;
        space();
        if (peek() == '}') {
            ++at_;
            return;
        }
        while (true) {
            space();
            if (peek() != '"') fail("a key is expected");
            std::string key = quoted();
            space();
            expect(":");
            found.members_.emplace_back(std::move(key), value(depth + 1));
            space();
            if (peek() == '}') {
                ++at_;
                return;
            }
            expect(",");
        }
    }

    void list(Json& found, int depth) {
        found.kind_ = Json::Kind::list;
        ++at_;
        space();
        if (peek() == ']') {
            ++at_;
            return;
        }
        while (true) {
            found.list_.push_back(value(depth + 1));
            space();
            if (peek() == ']') {
                ++at_;
                return;
            }
            expect(",");
        }
    }

    void number(Json& found) {
        const std::size_t begin = at_;
        bool whole = true;
        if (at_ < text_.size() && text_[at_] == '-') ++at_;
        while (at_ < text_.size()) {
            const char c = text_[at_];
            if (c >= '0' && c <= '9') {
                ++at_;
            } else if (c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-') {
                whole = false;
                ++at_;
            } else {
                break;
            }
        }
        const char *first = text_.data() + begin, *last = text_.data() + at_;
        if (first == last) fail("no JSON");
        if (whole) {
            const auto [end, error] = std::from_chars(first, last, found.integer_);
            if (error == std::errc() && end == last) {
                found.kind_ = Json::Kind::integer;
                return;
            }
        }
        const auto [end, error] = std::from_chars(first, last, found.real_);
        if (error != std::errc() || end != last || !std::isfinite(found.real_)) fail("no number");
        found.kind_ = Json::Kind::real;
    }

    unsigned hex() {
        if (at_ + 4 > text_.size()) fail("the document ends");
        unsigned code = 0;
        const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + at_ + 4, code, 16);
        if (error != std::errc() || end != text_.data() + at_ + 4) fail("no character");
        at_ += 4;
        return code;
    }

    std::string quoted() {
        std::string found;
        ++at_;
        while (true) {
            const char c = peek();
            ++at_;
            if (c == '"') return found;
            if (static_cast<unsigned char>(c) < 0x20) fail("a control character stands in a text");
            if (c != '\\') {
                found += c;
                continue;
            }
            const char escaped = peek();
            ++at_;
            switch (escaped) {
                case '"':
                case '\\':
                case '/': found += escaped; break;
                case 'b': found += '\b'; break;
                case 'f': found += '\f'; break;
                case 'n': found += '\n'; break;
                case 'r': found += '\r'; break;
                case 't': found += '\t'; break;
                case 'u': {
                    unsigned code = hex();
                    if (code >= 0xd800 && code < 0xdc00 && text_.substr(at_, 2) == "\\u") {
                        at_ += 2;
                        const unsigned low = hex();
                        if (low < 0xdc00 || low >= 0xe000) fail("half a character");
                        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    }
                    if (code >= 0xd800 && code < 0xe000) fail("half a character");
                    append_utf8(found, code);
                    break;
                }
                default: fail("no character");
            }
        }
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

Json Json::parse(std::string_view document) {
    return JsonParser(document).document();
}

bool Json::boolean() const {
    if (kind_ != Kind::boolean) wrong(kind_, "true or false");
    return boolean_;
}

std::int64_t Json::integer() const {
    if (kind_ != Kind::integer) wrong(kind_, "a whole number");
    return integer_;
}

double Json::number() const {
    if (kind_ == Kind::integer) return static_cast<double>(integer_);
    if (kind_ != Kind::real) wrong(kind_, "a number");
    return real_;
}

const std::string& Json::text() const {
    if (kind_ != Kind::text) wrong(kind_, "a text");
    return text_;
}

const std::vector<Json>& Json::list() const {
    if (kind_ != Kind::list) wrong(kind_, "a list");
    return list_;
}

const Json::Members& Json::object() const {
    if (kind_ != Kind::object) wrong(kind_, "an object");
    return members_;
}

const Json* Json::find(std::string_view key) const {
    for (auto member = members_.rbegin(); member != members_.rend(); ++member)
        if (member->first == key) return &member->second;
    return nullptr;
}

const Json& Json::at(std::string_view key) const {
    if (kind_ != Kind::object) wrong(kind_, "an object");
    const Json* found = find(key);
    if (!found) throw std::invalid_argument("there is no " + std::string(key));
    return *found;
}

std::string json_quoted(std::string_view utf8) {
    static const char* digits = "0123456789abcdef";
    std::string found = "\"";
    auto unit = [&](unsigned code) {
        found += "\\u";
        for (int shift = 12; shift >= 0; shift -= 4) found += digits[(code >> shift) & 15];
    };
    for (const char32_t c : code_points(utf8)) {
        switch (c) {
            case '"': found += "\\\""; break;
            case '\\': found += "\\\\"; break;
            case '\n': found += "\\n"; break;
            case '\r': found += "\\r"; break;
            case '\t': found += "\\t"; break;
            case '\f': found += "\\f"; break;
            case '\b': found += "\\b"; break;
            default:
                if (c >= 0x20 && c < 0x7f) {
                    found += static_cast<char>(c);
                } else if (c == 0x7f) {
                    found += static_cast<char>(c);
                } else if (c < 0x10000) {
                    unit(c);
                } else {
                    unit(0xd800 + ((c - 0x10000) >> 10));
                    unit(0xdc00 + ((c - 0x10000) & 0x3ff));
                }
        }
    }
    return found + "\"";
}

}  // namespace ov2vss
