#include "characters.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "character_tables.h"
#include "unicode.h"

namespace ov2vss::hf {

namespace {

template <std::size_t Count>
bool within(const CharacterRange (&table)[Count], char32_t c) {
    const auto* next =
        std::upper_bound(std::begin(table), std::end(table), static_cast<std::uint32_t>(c),
                         [](std::uint32_t value, const CharacterRange& range) { return value < range.first; });
    return next != std::begin(table) && c <= std::prev(next)->last;
}

int order_of(char32_t c) {
    return within(kOrdered, c) ? utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class : 0;
}

// The composite of two characters, 0 where there is none.
char32_t pair_of(char32_t first, char32_t second) {
    utf8proc_int32_t both[2] = {static_cast<utf8proc_int32_t>(first), static_cast<utf8proc_int32_t>(second)};
    const auto count =
        utf8proc_normalize_utf32(both, 2, static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    const auto found = static_cast<char32_t>(both[0]);
    return count == 1 && within(kDecomposed, found) ? found : 0;
}

}  // namespace

bool is_removed(char32_t c) {
    return within(kRemoved, c);
}
bool is_blank(char32_t c) {
    return within(kBlank, c);
}
bool is_mark(char32_t c) {
    return within(kMarks, c);
}
bool is_punctuation(char32_t c) {
    return within(kPunctuation, c);
}
bool is_letter(char32_t c) {
    return within(kLetters, c);
}
bool is_number(char32_t c) {
    return within(kNumbers, c);
}

bool is_white(char32_t c) {
    return is_space(c) && !(c >= 0x1c && c <= 0x1f);
}

void append_lower(std::u32string& to, char32_t c) {
    const auto* found =
        std::lower_bound(std::begin(kLower), std::end(kLower), static_cast<std::uint32_t>(c),
                         [](const CharacterRange& pair, std::uint32_t value) { return pair.first < value; });
    if (found != std::end(kLower) && found->first == c)
        to += static_cast<char32_t>(found->last);
    else
        ov2vss::append_lower(to, c);
}

std::u32string decomposed(std::u32string_view text) {
    std::u32string found;
    for (const char32_t c : text) {
        if (within(kDecomposed, c))
            found += ov2vss::decomposed({&c, 1});
        else
            found += c;
    }
    // Marks that belong to one letter stand in the order of their combining classes.
    for (std::size_t begin = 0; begin < found.size();) {
        if (order_of(found[begin]) == 0) {
            ++begin;
            continue;
        }
        std::size_t end = begin;
        while (end < found.size() && order_of(found[end]) != 0) ++end;
        std::stable_sort(found.begin() + static_cast<std::ptrdiff_t>(begin),
                         found.begin() + static_cast<std::ptrdiff_t>(end),
                         [](char32_t one, char32_t other) { return order_of(one) < order_of(other); });
        begin = end;
    }
    return found;
}

std::u32string composed(std::u32string_view text) {
    const std::u32string parts = decomposed(text);
    std::u32string found;
    std::size_t starter = std::u32string::npos;
    int last = -1;  // class of the character before, -1 right after the starter
    for (const char32_t c : parts) {
        const int order = order_of(c);
        if (starter != std::u32string::npos && (last < order || last == -1)) {
            if (const char32_t both = pair_of(found[starter], c)) {
                found[starter] = both;
                continue;
            }
        }
        if (order == 0) {
            starter = found.size();
            last = -1;
        } else {
            last = order;
        }
        found += c;
    }
    return found;
}

}  // namespace ov2vss::hf
