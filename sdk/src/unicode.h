// Characters: UTF-8, classes, case and normal forms (over libutf8proc).
#pragma once

#include <string>
#include <string_view>

namespace ov2vss {

// Code points of UTF-8; throws std::invalid_argument where it is not valid.
std::u32string code_points(std::string_view utf8);
void append_utf8(std::string& to, char32_t code);
std::string to_utf8(std::u32string_view text);

// Normal forms C and D.
std::u32string composed(std::u32string_view text);
std::u32string decomposed(std::u32string_view text);
// For comparisons without case.
std::u32string case_folded(std::u32string_view text);
// Lower case of one character, which may be several.
void append_lower(std::u32string& to, char32_t c);

// What Python's str.split() takes as a separator.
bool is_space(char32_t c);
// Controls, surrogates and private characters (Cc, Cs, Co).
bool is_control_or_private(char32_t c);
// Letters and numbers of Unicode's general categories L and N.
bool is_letter(char32_t c);
bool is_number(char32_t c);

// Words between spaces, with one blank between them.
std::u32string squeezed(std::u32string_view text);
// Without spaces at both ends.
std::u32string_view stripped(std::u32string_view text);

}  // namespace ov2vss
