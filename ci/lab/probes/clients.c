/*
 * Clients of a Unix socket that come and go, and mean no good:
 *
 *   clients PATH SEED
 *
 * Until it is ended: silent ones, half a request, a line that is too long, noise,
 * many requests at once, one that is gone before its answer. At most eight are there
 * at once. While nobody listens they come in vain.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define THERE 8

static void say(int fd, const char *bytes, size_t length)
{
	/* What becomes of it is the server's affair; it may have hung up. */
	if (send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
	    errno != EAGAIN && errno != EPIPE && errno != ECONNRESET)
		perror("clients");
}

static void misbehave(int fd)
{
	static const char status[] = "{\"request\":\"status\"}\n";
	char bytes[10000];
	size_t i;

	switch (rand() % 6) {
	case 0:
		break;
	case 1:
		say(fd, "{\"request\":\"sta", 15);
		break;
	case 2:
		memset(bytes, 'x', sizeof(bytes));
		say(fd, bytes, sizeof(bytes));
		break;
	case 3:
		for (i = 0; i < 200; i++)
			bytes[i] = (char)rand();
		bytes[i++] = '\n';
		say(fd, bytes, i);
		break;
	case 4:
		for (i = 0; i < 40; i++)
			say(fd, status, sizeof(status) - 1);
		break;
	default:
		say(fd, status, sizeof(status) - 1);
		shutdown(fd, SHUT_RDWR);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int there[THERE], next = 0;

	if (argc != 3 || strlen(argv[1]) >= sizeof(address.sun_path)) {
		fputs("usage: clients PATH SEED\n", stderr);
		return 2;
	}
	strcpy(address.sun_path, argv[1]);
	srand((unsigned int)atoi(argv[2]));
	memset(there, -1, sizeof(there));
	for (;; usleep((useconds_t)(rand() % 100) * 1000)) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

		if (fd < 0) {
			perror("clients: socket");
			return 1;
		}
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
			close(fd);
			continue;
		}
		misbehave(fd);
		if (there[next] >= 0)
			close(there[next]);
		there[next] = fd;
		next = (next + 1) % THERE;
	}
}
