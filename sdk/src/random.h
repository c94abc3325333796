// Python's random numbers: the Mersenne Twister, seeded with a whole number as `random.Random(seed)` is.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace ov2vss {

class Random {
public:
    explicit Random(std::uint64_t seed) {
        std::vector<std::uint32_t> key = {static_cast<std::uint32_t>(seed)};
        if (seed >> 32) key.push_back(static_cast<std::uint32_t>(seed >> 32));
        fill(19650218u);
        std::size_t i = 1, j = 0;
        for (std::size_t k = std::max<std::size_t>(kSize, key.size()); k > 0; --k) {
            state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1664525u)) + key[j] +
                        static_cast<std::uint32_t>(j);
            next(i);
            j = (j + 1) % key.size();
        }
        for (std::size_t k = kSize - 1; k > 0; --k) {
            state_[i] =
                (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1566083941u)) - static_cast<std::uint32_t>(i);
            next(i);
        }
        state_[0] = 0x80000000u;
        at_ = kSize;
    }

    // randrange(count), count >= 1.
    std::uint64_t below(std::uint64_t count) {
        int bits = 0;
        while (bits < 64 && count >> bits) ++bits;
        std::uint64_t found = 0;
        do {
            found = drawn(bits);
        } while (found >= count);
        return found;
    }

    // As getstate() and setstate() have it: 624 words and the place in them.
    std::vector<std::uint32_t> state() const {
        std::vector<std::uint32_t> found(state_.begin(), state_.end());
        found.push_back(at_);
        return found;
    }
    bool set_state(const std::vector<std::uint32_t>& state) {
        if (state.size() != kSize + 1 || state.back() > kSize) return false;
        std::copy(state.begin(), state.end() - 1, state_.begin());
        at_ = state.back();
        return true;
    }

private:
    static constexpr std::uint32_t kSize = 624;

    void fill(std::uint32_t seed) {
        state_[0] = seed;
        for (std::uint32_t i = 1; i < kSize; ++i) state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;
    }
    void next(std::size_t& i) {
        if (++i >= kSize) {
            state_[0] = state_[kSize - 1];
            i = 1;
        }
    }
    std::uint64_t drawn(int bits) {
        if (bits <= 32) return word() >> (32 - bits);
        const std::uint64_t low = word();
        return low | static_cast<std::uint64_t>(word() >> (64 - bits)) << 32;
    }
    std::uint32_t word() {
        if (at_ >= kSize) {
            for (std::uint32_t i = 0; i < kSize; ++i) {
                const std::uint32_t y = (state_[i] & 0x80000000u) | (state_[(i + 1) % kSize] & 0x7fffffffu);
                state_[i] = state_[(i + 397) % kSize] ^ (y >> 1) ^ ((y & 1u) ? 0x9908b0dfu : 0u);
            }
            at_ = 0;
        }
        std::uint32_t y = state_[at_++];
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c5680u;
        y ^= (y << 15) & 0xefc60000u;
        return y ^ (y >> 18);
    }

    std::array<std::uint32_t, kSize> state_{};
    std::uint32_t at_ = kSize;
};

}  // namespace ov2vss
