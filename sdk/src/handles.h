// What the opaque types of the C interface are. Counted by hand: the caller holds these, streams hold what they need of
// them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "stream.h"

struct ov2vss_engine {
    explicit ov2vss_engine(std::shared_ptr<ov2vss::Engine> held) : engine(std::move(held)) {}
    std::shared_ptr<ov2vss::Engine> engine;
    std::atomic<int> count{1};
};

struct ov2vss_vocabulary {
    explicit ov2vss_vocabulary(std::shared_ptr<ov2vss::Vocabulary> held) : words(std::move(held)) {}
    std::shared_ptr<ov2vss::Vocabulary> words;
    std::atomic<int> count{1};
};

struct ov2vss_stream {
    explicit ov2vss_stream(ov2vss::Stream made) : stream(std::move(made)) {}
    ov2vss::Stream stream;
    std::vector<std::uint8_t> rgb;
};
