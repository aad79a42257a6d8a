/*
 * Runs inside a Linux guest: takes one kernel spinlock from every CPU for a
 * given number of seconds. FUTEX_WAIT with a value that the word does not have
 * locks the word's hash bucket, looks, unlocks and returns EAGAIN: nothing is
 * ever waited for but the lock. So that the lock is also held for a while, now
 * and then when its vCPU is preempted, each operation goes on with a wake-up
 * that is for nobody: under the lock it looks at every sleeper of the bucket.
 *
 * Prints "contend: cpus N seconds S operations O rate R".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLEEPERS 256
/* Sleepers wait for the one, wake-ups are for the other. */
#define SLEEP_BIT 1u
#define NOBODY_BIT 2u

static unsigned int word;
static atomic_int go, stop;
static atomic_int wrong;

struct worker {
	pthread_t thread;
	int cpu;
	unsigned long long operations;
};

static void *sleeper(void *argument)
{
	for (;;)
		syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL,
			NULL, SLEEP_BIT);
	return argument;
}

static void *work(void *argument)
{
	struct worker *self = argument;
	unsigned long long operations = 0;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(self->cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) != 0)
		atomic_store(&wrong, errno);
	while (!atomic_load(&go))
		sched_yield();
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		long result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1,
				      NULL, NULL, 0);

		if (result != -1 || errno != EAGAIN) {
			atomic_store(&wrong, errno ? errno : EINVAL);
			break;
		}
		result = syscall(SYS_futex, &word, FUTEX_WAKE_BITSET_PRIVATE,
				 1, NULL, NULL, NOBODY_BIT);
		if (result != 0) {
			atomic_store(&wrong, EINVAL);
			break;
		}
		operations++;
	}
	self->operations = operations;
	return NULL;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 3, begun, took;
	int cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct worker *workers = calloc(cpus, sizeof(*workers));
	unsigned long long operations = 0;
	struct timespec length = { .tv_sec = (time_t)seconds };

	length.tv_nsec = (long)((seconds - (double)length.tv_sec) * 1e9);
	for (int i = 0; i < SLEEPERS; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, sleeper, NULL) != 0) {
			puts("contend: no thread");
			return 1;
		}
	}
	for (int i = 0; i < cpus; i++) {
		workers[i].cpu = i;
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
			puts("contend: no thread");
			return 1;
		}
	}
	begun = now();
	atomic_store(&go, 1);
	nanosleep(&length, NULL);
	atomic_store(&stop, 1);
	for (int i = 0; i < cpus; i++) {
		pthread_join(workers[i].thread, NULL);
		operations += workers[i].operations;
	}
	took = now() - begun;
	if (atomic_load(&wrong)) {
		printf("contend: failed, errno %d\n", atomic_load(&wrong));
		return 1;
	}
	printf("contend: cpus %d seconds %.2f operations %llu rate %.0f\n", cpus,
	       took, operations, operations / took);
	return 0;
}
