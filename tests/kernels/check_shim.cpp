// check_shim NAME runs one check: 0 if it held. Without a name it lists them.
#include "check_shim.hpp"

int main(int count, char** arguments) {
  for (const auto* checks : {&kLayoutChecks, &kCopyChecks, &kOrderChecks, &kFaultChecks, &kRaceChecks}) {
    for (const Check& check : *checks) {
      if (count < 2) {
        puts(check.name);
      } else if (strcmp(check.name, arguments[1]) == 0) {
        check.run();
        return 0;
      }
    }
  }
  return count < 2 ? 0 : 2;
}
