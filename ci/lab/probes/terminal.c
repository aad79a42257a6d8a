/*
 * Runs a program whose standard input is a terminal, and types there what comes by
 * its own standard input:
 *
 *   terminal PROGRAM ARGUMENTS... <KEYS
 *
 * The program takes this process's place, so that its status and signals for it are
 * nobody else's. Needs devpts at /dev/pts.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	const char *name;
	int slave;

	if (argc < 2) {
		fputs("usage: terminal PROGRAM ARGUMENTS... <KEYS\n", stderr);
		return 2;
	}
	if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0 ||
	    (name = ptsname(master)) == NULL ||
	    (slave = open(name, O_RDWR | O_NOCTTY)) < 0) {
		perror("terminal");
		return 1;
	}
	switch (fork()) {
	case -1:
		perror("terminal");
		return 1;
	case 0: {
		char keys[256];
		ssize_t count;

		prctl(PR_SET_PDEATHSIG, SIGTERM);
		while ((count = read(0, keys, sizeof(keys))) > 0 &&
		       write(master, keys, count) == count)
			;
		/* A terminal whose master is closed has hung up: not before its
		 * time. */
		pause();
		_exit(0);
	}
	}
	dup2(slave, 0);
	close(slave);
	execvp(argv[1], argv + 1);
	perror(argv[1]);
	return 127;
}
