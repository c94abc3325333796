// An engine that stands in for a real one: its graphs are arithmetic on their inputs, and its bundle is written here.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "module.h"
#include "sha256.h"

namespace stand_in {

// Every output value is made of all inputs' values, so that nothing that a stream mixes up stays unseen.
inline int run(void*, const ov2vss_module_tensor* inputs, size_t input_count, const ov2vss_module_tensor* outputs,
               size_t output_count, ov2vss_module_error*) {
    auto count_of = [](const ov2vss_module_tensor& tensor) {
        std::size_t count = 1;
        for (int axis = 0; axis < tensor.rank; ++axis) count *= static_cast<std::size_t>(tensor.shape[axis]);
        return count;
    };
    std::vector<double> sums;
    for (size_t i = 0; i < input_count; ++i) {
        double sum = 0;
        const std::size_t count = count_of(inputs[i]);
        for (std::size_t k = 0; k < count; ++k) {
            double value = 0;
            if (inputs[i].type == OV2VSS_UINT8)
                value = static_cast<const std::uint8_t*>(inputs[i].data)[k] / 255.0;
            else if (inputs[i].type == OV2VSS_INT64)
                value = static_cast<double>(static_cast<const std::int64_t*>(inputs[i].data)[k] % 97) / 97;
            else
                value = static_cast<double>(static_cast<const float*>(inputs[i].data)[k]);
            sum += value * static_cast<double>(1 + k % 7);
        }
        sums.push_back(sum / static_cast<double>(count));
    }
    double all = 0;
    for (std::size_t i = 0; i < sums.size(); ++i) all += sums[i] * static_cast<double>(i + 1);
    for (size_t i = 0; i < output_count; ++i) {
        const std::size_t count = count_of(outputs[i]),
                          row = outputs[i].rank ? count / static_cast<std::size_t>(outputs[i].shape[0]) : 1;
        for (std::size_t k = 0; k < count; ++k) {
            // The classes' own rows decide between them.
            double own = 0;
            for (size_t j = 0; j < input_count; ++j)
                if (!std::strcmp(inputs[j].name, "class_embeddings"))
                    own = static_cast<double>(static_cast<const float*>(
                        inputs[j].data)[(k / row) * static_cast<std::size_t>(inputs[j].shape[1])]);
            const double mixed = all * 37 + own * 11 + static_cast<double>(k % row) * 0.61;
            static_cast<float*>(outputs[i].data)[k] =
                static_cast<float>(mixed - static_cast<double>(static_cast<long long>(mixed)));
        }
    }
    return 0;
}

inline const ov2vss_module* module() {
    static const ov2vss_module made = {
        OV2VSS_MODULE_VERSION,
        "openvino",
        "StandIn",
        [](const ov2vss_module_config*, void** engine, ov2vss_module_error*) {
            *engine = nullptr;
            return 0;
        },
        [](void*) {},
        [](void*) { return "stand-in 1"; },
        [](void*, const void*, size_t, const char*, const char*, int64_t, int64_t, void** graph, ov2vss_module_error*) {
            static int token;
            *graph = &token;
            return 0;
        },
        [](void*) {},
        run};
    return &made;
}

inline void write(const std::string& path, const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
}

// A bundle of 64 x 64 with a state, a distant frame, cuts and candidates; the folder is there.
inline void write_bundle(const std::string& folder) {
    const std::string graph("\x08\x08", 2);  // an ONNX file with nothing but its version
    const std::string tokenizer =
        R"({"truncation": null, "padding": null, "added_tokens": [], "normalizer": {"type": "BertNormalizer", "clean_text": true,
        "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}, "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": null, "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "road": 1, "car": 2, "sky": 3, "##s": 4, "a": 5}}})";
    const std::string cache("\x02\0\0\0\0\0\0\0{}", 10);
    write(folder + "/graph.onnx", graph);
    write(folder + "/tokenizer.json", tokenizer);
    write(folder + "/vocabulary.safetensors", cache);
    auto hashed = [](const std::string& file, const std::string& content) {
        return "\"file\": \"" + file + "\", \"sha256\": \"" + ov2vss::sha256(content.data(), content.size()) + "\"";
    };
    auto tensor = [](const std::string& name, const std::string& shape, const char* type = "float32") {
        return "{\"name\": \"" + name + "\", \"dtype\": \"" + type + "\", \"shape\": [" + shape + "]}";
    };
    const std::string file = hashed("graph.onnx", graph), context = tensor("context", "4"),
                      tokens = tensor("tokens", "3, 5, 4");
    const std::string dense = tensor("dense", "8, 4, 4"), guidance = tensor("guidance", "2, 8, 8");
    write(folder + "/manifest.json",
          "{\"format_version\": 3, \"name\": \"stand-in\", \"variants\": {\"fp32\": {\"precision\": \"fp32\", "
          "\"engines\": [\"openvino\"], \"graphs\": {"
          "\"text\": {" +
              file + ", \"inputs\": [" + tensor("tokens", "\"B\", \"L\"", "int64") + "], \"outputs\": [" +
              tensor("embeddings", "\"B\", 8") +
              "]},"
              "\"backbone\": {" +
              file + ", \"inputs\": [" + tensor("frame", "1, 64, 64, 3", "uint8") + "], \"outputs\": [" + tokens +
              ", " + context + ", " + dense +
              "]},"
              "\"stcf_step\": {" +
              file + ", \"inputs\": [" + tokens + ", " + context + ", " + tensor("state_in", "2, 3") +
              "], \"outputs\": [" + guidance + ", " + tensor("state_out", "2, 3") +
              "]},"
              "\"decoder\": {" +
              file + ", \"inputs\": [" + guidance + ", " + dense + ", " + tensor("class_embeddings", "\"N\", 8") +
              "], \"outputs\": [" + tensor("logits", "\"N\", 8, 8") +
              "]}}}},"
              "\"state\": {\"input\": \"state_in\", \"output\": \"state_out\", \"shape\": [2, 3], \"warmup\": 3}, "
              "\"references\": 3, \"gap\": 2,"
              "\"preprocess\": {\"colour_order\": \"RGB\", \"size\": [64, 64]}, \"tokenizer\": {" +
              hashed("tokenizer.json", tokenizer) +
              "},"
              "\"vocabulary\": {\"entries\": [[\"road\"], [\"car\", \"cars\"], [\"sky\"]], \"templates\": [\"{}\", \"a "
              "{}\"], \"embed_dim\": 8},"
              "\"vocabulary_cache\": {" +
              hashed("vocabulary.safetensors", cache) + "}}");
}

}  // namespace stand_in
