// Characters as Hugging Face's tokenizers sees them.
#pragma once

#include <string>
#include <string_view>

namespace ov2vss::hf {

bool is_removed(char32_t c);      // by BERT's cleaning
bool is_blank(char32_t c);        // to BERT's cleaning
bool is_mark(char32_t c);         // nonspacing
bool is_punctuation(char32_t c);  // to BERT
bool is_letter(char32_t c);
bool is_number(char32_t c);
bool is_white(char32_t c);  // Unicode's White_Space
void append_lower(std::u32string& to, char32_t c);
std::u32string decomposed(std::u32string_view text);
std::u32string composed(std::u32string_view text);

}  // namespace ov2vss::hf
