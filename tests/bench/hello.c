/* The smallest CGI script: what is measured is how a server runs it. It says its length: wrk
   counts an error where an answer ends with the connection. */
#include <unistd.h>

int main(void)
{
    static const char answer[] =
        "Content-Type: text/plain\r\nContent-Length: 14\r\n\r\nHello, world!\n";
    return write(1, answer, sizeof answer - 1) != sizeof answer - 1;
}
