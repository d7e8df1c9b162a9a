/* Stands in until there is a port program: it links with all that one needs, and ends at once. */
#include <ei.h>
#include <libpq-fe.h>

int main(void) {
    return ei_init() != 0 || PQlibVersion() == 0;
}
