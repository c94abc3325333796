#include "unicode.h"

#include <utf8proc.h>

#include <stdexcept>
#include <vector>

namespace ov2vss {

std::u32string code_points(std::string_view utf8) {
    std::u32string found;
    found.reserve(utf8.size());
    const auto* at = reinterpret_cast<const utf8proc_uint8_t*>(utf8.data());
    auto left = static_cast<utf8proc_ssize_t>(utf8.size());
    while (left > 0) {
        utf8proc_int32_t code = -1;
        const utf8proc_ssize_t used = utf8proc_iterate(at, left, &code);
        if (used <= 0 || code < 0) throw std::invalid_argument("no UTF-8");
        found += static_cast<char32_t>(code);
        at += used;
        left -= used;
    }
    return found;
}

void append_utf8(std::string& to, char32_t code) {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes);
    to.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(count));
}

std::string to_utf8(std::u32string_view text) {
    std::string found;
    found.reserve(text.size());
    for (const char32_t c : text) append_utf8(found, c);
    return found;
}

namespace {

std::u32string mapped(std::u32string_view text, unsigned options) {
    std::vector<utf8proc_int32_t> buffer;
    std::vector<utf8proc_int32_t> piece(32);
    int boundary = 0;
    for (const char32_t c : text) {
        auto need = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), piece.data(),
                                            static_cast<utf8proc_ssize_t>(piece.size()),
                                            static_cast<utf8proc_option_t>(options), &boundary);
        if (need < 0) throw std::invalid_argument(utf8proc_errmsg(need));
        buffer.insert(buffer.end(), piece.begin(), piece.begin() + need);
    }
    // Marks in the order of their combining classes.
    for (std::size_t at = 1; at < buffer.size();) {
        const auto first = utf8proc_get_property(buffer[at - 1])->combining_class;
        const auto second = utf8proc_get_property(buffer[at])->combining_class;
        if (first > second && second > 0) {
            std::swap(buffer[at - 1], buffer[at]);
            at = at > 1 ? at - 1 : at + 1;
        } else {
            ++at;
        }
    }
    if (options & UTF8PROC_COMPOSE) {
        const auto count = utf8proc_normalize_utf32(buffer.data(), static_cast<utf8proc_ssize_t>(buffer.size()),
                                                    static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE));
        if (count < 0) throw std::invalid_argument(utf8proc_errmsg(count));
        buffer.resize(static_cast<std::size_t>(count));
    }
    return {buffer.begin(), buffer.end()};
}

int category(char32_t c) {
    return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

}  // namespace

std::u32string composed(std::u32string_view text) {
    return mapped(text, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
}

std::u32string decomposed(std::u32string_view text) {
    return mapped(text, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
}

std::u32string case_folded(std::u32string_view text) {
    std::u32string found;
    std::vector<utf8proc_int32_t> piece(32);
    int boundary = 0;
    for (const char32_t c : text) {
        const auto need =
            utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), piece.data(),
                                    static_cast<utf8proc_ssize_t>(piece.size()), UTF8PROC_CASEFOLD, &boundary);
        if (need < 0) throw std::invalid_argument(utf8proc_errmsg(need));
        found.append(piece.begin(), piece.begin() + need);
    }
    return found;
}

void append_lower(std::u32string& to, char32_t c) {
    if (c == 0x130) {  // the one character whose lower case is two
        to += U"i\u0307";
        return;
    }
    to += static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

bool is_space(char32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_control_or_private(char32_t c) {
    const int kind = category(c);
    return kind == UTF8PROC_CATEGORY_CC || kind == UTF8PROC_CATEGORY_CS || kind == UTF8PROC_CATEGORY_CO;
}

bool is_letter(char32_t c) {
    const int kind = category(c);
    return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}

bool is_number(char32_t c) {
    const int kind = category(c);
    return kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO;
}

std::u32string squeezed(std::u32string_view text) {
    std::u32string found;
    for (std::size_t at = 0; at < text.size();) {
        while (at < text.size() && is_space(text[at])) ++at;
        const std::size_t begin = at;
        while (at < text.size() && !is_space(text[at])) ++at;
        if (at == begin) break;
        if (!found.empty()) found += U' ';
        found += text.substr(begin, at - begin);
    }
    return found;
}

std::u32string_view stripped(std::u32string_view text) {
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    return text;
}

}  // namespace ov2vss
