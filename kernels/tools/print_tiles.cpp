// Prints what tiles.h says of each tile shape, as JSON, for kernels/resources.py: so that no size is written down twice.
#include <cstdio>
#include <initializer_list>

#include "attention/tiles.h"

int main() {
  // Rows of what attends to itself: SAM's windows and its grid at 1024 pixels.
  constexpr int kSides[] = {14, 64};
  const char* comma = "";
  printf("[");
  for (const samrt::TileShape& shape : samrt::kTileShapes) {
    for (int head_dim : {64, 80}) {
      printf("%s\n{\"name\": \"%s\", \"head_dim\": %d, \"threads\": %d, \"blocks\": %d, \"shared_bytes\": {", comma,
             shape.name, head_dim, shape.threads(), shape.blocks(head_dim));
      for (int side : kSides) {
        printf("%s\"%d\": %zu", side == kSides[0] ? "" : ", ", side, shape.shared_bytes(head_dim, side));
      }
      printf("}}");
      comma = ",";
    }
  }
  printf("\n]\n");
  return 0;
}
