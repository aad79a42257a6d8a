/*
 * Sends one line to a Unix socket and prints the line that comes back:
 *
 *   ask PATH '{"request":"status"}'
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char byte;

	if (argc != 3 || fd < 0 ||
	    strlen(argv[1]) >= sizeof(address.sun_path)) {
		fputs("usage: ask PATH LINE\n", stderr);
		return 2;
	}
	strcpy(address.sun_path, argv[1]);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
	    dprintf(fd, "%s\n", argv[2]) < 0) {
		perror(argv[1]);
		return 1;
	}
	while (read(fd, &byte, 1) == 1) {
		putchar(byte);
		if (byte == '\n')
			return 0;
	}
	fputs("ask: no answer\n", stderr);
	return 1;
}
