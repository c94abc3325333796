// Any bytes as tokenizer.json, and the same bytes as texts for one that is good.
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "error.h"
#include "tokenizer.h"

namespace {

const char* const kGood =
    R"({"truncation": {"direction": "Right", "max_length": 40}, "padding": null, "added_tokens": [{"content": "[X]", "id": 7,
    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}], "normalizer": {"type": "BertNormalizer",
    "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}, "pre_tokenizer": {"type":
    "BertPreTokenizer"}, "post_processor": null, "model": {"type": "WordPiece", "unk_token": "u", "continuing_subword_prefix":
    "##", "max_input_chars_per_word": 100, "vocab": {"u": 0, "a": 1, "##b": 2, "ab": 3}}})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const auto good = ov2vss::Tokenizer::read(kGood, "good");
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    try {
        if (good->encode(bytes).size() > 40) std::abort();
    } catch (const std::invalid_argument&) {  // no UTF-8
    }
    try {
        const auto read = ov2vss::Tokenizer::read(bytes, "tokenizer.json");
        read->encode("a [X] Ünïcode 道路 don't\xc2\xa0stop");
    } catch (const ov2vss::Error&) {
    }
    return 0;
}
