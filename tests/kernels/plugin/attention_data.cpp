#include "attention_data.h"

#include <cmath>
#include <random>

#include "elements.hpp"

namespace {

using samrt::host::bfloat16_bits;
using samrt::host::bfloat16_value;
using samrt::host::half_bits;
using samrt::host::half_value;

double value_of(const AttentionCase& c, uint16_t bits) { return c.bfloat16 ? bfloat16_value(bits) : half_value(bits); }

std::vector<uint16_t> random(const AttentionCase& c, size_t count, float scale, std::mt19937& generator) {
  std::uniform_real_distribution<float> distribution(-scale, scale);
  std::vector<uint16_t> result(count);
  for (uint16_t& bits : result) {
    const float value = distribution(generator);
    bits = c.bfloat16 ? bfloat16_bits(value) : half_bits(value);
  }
  return result;
}

// One window (or the grid) of one head of one image, padded: query, key and value of every token.
struct Window {
  std::vector<std::vector<double>> parts[3];
};

Window gather(const AttentionData& data, int image, int top, int left, int head) {
  const AttentionCase& c = data.c;
  Window result;
  for (int row = top; row < top + c.side_h(); ++row) {
    for (int column = left; column < left + c.side_w(); ++column) {
      const bool padded = row >= c.grid_h || column >= c.grid_w;
      const size_t token = (size_t(image) * c.grid_h + row) * c.grid_w + column;
      for (int part = 0; part < 3; ++part) {
        std::vector<double> vector(c.head_dim);
        for (int i = 0; i < c.head_dim; ++i) {
          const size_t offset = (size_t(part) * c.heads + head) * c.head_dim + i;
          const size_t width = size_t(3) * c.heads * c.head_dim;
          vector[i] = value_of(c, padded ? data.qkv_bias[offset] : data.qkv[token * width + offset]);
        }
        result.parts[part].push_back(vector);
      }
    }
  }
  return result;
}

double dot(const AttentionCase& c, const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (int i = 0; i < c.head_dim; ++i) sum += a[i] * b[i];
  return sum;
}

std::vector<double> table_row(const AttentionCase& c, const std::vector<uint16_t>& table, int row) {
  std::vector<double> result(c.head_dim);
  for (int i = 0; i < c.head_dim; ++i) result[i] = value_of(c, table[size_t(row) * c.head_dim + i]);
  return result;
}

std::vector<double> attend(const AttentionData& data, const Window& window, int query) {
  const AttentionCase& c = data.c;
  const int side_w = c.side_w(), tokens = c.side_h() * side_w;
  const std::vector<double>& q = window.parts[0][query];
  std::vector<double> result(c.head_dim);
  double total = 0;
  for (int key = 0; key < tokens; ++key) {
    const int down = query / side_w - key / side_w + c.side_h() - 1;
    const int across = query % side_w - key % side_w + side_w - 1;
    const double score = dot(c, q, window.parts[1][key]) / std::sqrt(c.head_dim) +
                         dot(c, q, table_row(c, data.rel_pos_h, down)) +
                         dot(c, q, table_row(c, data.rel_pos_w, across));
    const double weight = std::exp(score);
    total += weight;
    for (int i = 0; i < c.head_dim; ++i) result[i] += weight * window.parts[2][key][i];
  }
  for (double& value : result) value /= total;
  return result;
}

}  // namespace

AttentionData::AttentionData(const AttentionCase& c) : c(c) {
  std::mt19937 generator(7);
  const size_t tokens = size_t(c.batch) * c.grid_h * c.grid_w, width = size_t(c.heads) * c.head_dim;
  qkv = random(c, tokens * 3 * width, 2.f, generator);
  qkv_bias = random(c, 3 * width, 2.f, generator);
  rel_pos_h = random(c, size_t(2 * c.side_h() - 1) * c.head_dim, 0.25f, generator);
  rel_pos_w = random(c, size_t(2 * c.side_w() - 1) * c.head_dim, 0.25f, generator);
  out.assign(tokens * width, 0xffff);
}

double AttentionData::largest_error() const {
  double largest = 0;
  for (int image = 0; image < c.batch; ++image) {
    for (int top = 0; top < c.grid_h; top += c.side_h()) {
      for (int left = 0; left < c.grid_w; left += c.side_w()) {
        for (int head = 0; head < c.heads; ++head) {
          const Window window = gather(*this, image, top, left, head);
          for (int query = 0; query < c.side_h() * c.side_w(); ++query) {
            const int row = top + query / c.side_w(), column = left + query % c.side_w();
            if (row >= c.grid_h || column >= c.grid_w) continue;
            const std::vector<double> expected = attend(*this, window, query);
            const size_t token = (size_t(image) * c.grid_h + row) * c.grid_w + column;
            for (int i = 0; i < c.head_dim; ++i) {
              const double error = value_of(c, out[(token * c.heads + head) * c.head_dim + i]) - expected[i];
              largest = std::isnan(error) ? INFINITY : std::fmax(largest, std::fabs(error));
            }
          }
        }
      }
    }
  }
  return largest;
}
