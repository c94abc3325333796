// JSON as manifests, tokenizers and tensor files have it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ov2vss {

// A value. Members of objects keep their order; of a key that stands there twice the last one counts, as in Python.
class Json {
public:
    enum class Kind { null, boolean, integer, real, text, list, object };
    using Members = std::vector<std::pair<std::string, Json>>;

    // Reads a whole document of UTF-8. Throws std::invalid_argument with the place of what is wrong; deeper nesting
    // than 100 is refused.
    static Json parse(std::string_view document);

    Kind kind() const { return kind_; }
    bool is(Kind kind) const { return kind_ == kind; }
    // These throw std::invalid_argument where the value is of another kind.
    bool boolean() const;
    std::int64_t integer() const;
    double number() const;
    const std::string& text() const;
    const std::vector<Json>& list() const;
    const Members& object() const;

    // The member of an object, or null where there is none or this is no object.
    const Json* find(std::string_view key) const;
    // The member of an object; throws std::invalid_argument with its name where there is none.
    const Json& at(std::string_view key) const;

private:
    friend class JsonParser;
    Kind kind_ = Kind::null;
    bool boolean_ = false;
    std::int64_t integer_ = 0;
    double real_ = 0;
    std::string text_;
    std::vector<Json> list_;
    Members members_;
};

// A text in quotes as Python's json.dumps writes it: ASCII only.
std::string json_quoted(std::string_view utf8);

}  // namespace ov2vss
