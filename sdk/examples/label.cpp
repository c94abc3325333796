// label_cpp BUNDLE WIDTH HEIGHT WORDS < frames.rgb: the share of every word in every frame.
#include <cstdio>
#include <iostream>
#include <ov2vss/ov2vss.hpp>
#include <vector>

int main(int count, char** arguments) try {
    if (count != 5) {
        std::cerr << "usage: label_cpp BUNDLE WIDTH HEIGHT WORDS < frames.rgb\n";
        return 2;
    }
    const ov2vss::Engine engine(arguments[1]);
    const ov2vss::Vocabulary words = engine.words(std::string(arguments[4]));
    ov2vss::StreamOptions options;
    options.confidence = 1;
    ov2vss::Stream stream(engine, words, options);

    const int width = std::stoi(arguments[2]), height = std::stoi(arguments[3]);
    const auto pixels = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
    std::vector<std::uint8_t> rgb(3 * pixels), labels(pixels * words.label_bytes());
    std::vector<float> confidence(pixels);
    while (std::fread(rgb.data(), 3, pixels, stdin) == pixels) {
        const ov2vss::Result result =
            stream.step(ov2vss::rgb(rgb.data(), width, height), ov2vss::no_time, labels.data(), confidence.data());
        std::vector<std::size_t> area(words.size());
        for (std::size_t i = 0; i < pixels; ++i) {
            const std::size_t label =
                words.label_bytes() == 1 ? labels[i] : reinterpret_cast<const std::uint16_t*>(labels.data())[i];
            if (label < area.size()) ++area[label];
        }
        std::cout << "frame " << result.index << ":";
        for (std::size_t i = 0; i < area.size(); ++i)
            std::cout << " " << words.name(i) << " " << 100.0 * area[i] / pixels << "%";
        std::cout << "\n";
    }
    return 0;
} catch (const std::exception& error) {
    std::cerr << "label_cpp: " << error.what() << "\n";
    return 1;
}
