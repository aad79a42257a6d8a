/*
 * How long from the start of a process to its guest's first instruction?
 *
 *   boot-time guest IMAGE MIB        a VMM of nothing but the ioctls that
 *                                    `vmm-reference run` makes, in its order
 *   boot-time compare N A... -- B... runs both commands N times, in turns, and
 *                                    prints of the time to the first byte on
 *                                    standard output the medians of A and B and
 *                                    their ratio, then the same of the fastest
 *                                    tenth: what it takes when nobody interferes
 *
 * IMAGE is flat, for 0x100000, entered 32 bytes behind its start; its first
 * instructions print on COM1.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void must(int fine, const char *what)
{
	if (!fine) {
		perror(what);
		exit(1);
	}
}

static int call(int fd, unsigned long request, void *argument, const char *what)
{
	int result = ioctl(fd, request, argument);

	must(result >= 0, what);
	return result;
}
#define CALL(fd, request, argument) \
	call(fd, request, (void *)(argument), #request)

struct vcpu {
	int fd;
	struct kvm_run *run;
};

static void *run(void *argument)
{
	struct vcpu *vcpu = argument;

	for (;;) {
		CALL(vcpu->fd, KVM_RUN, 0);
		if (vcpu->run->exit_reason != KVM_EXIT_IO) {
			fprintf(stderr, "exit %u\n", vcpu->run->exit_reason);
			exit(1);
		}
		if (vcpu->run->io.port == 0xf4)
			return NULL;
		must(write(1, (char *)vcpu->run + vcpu->run->io.data_offset, 1) == 1, "write");
	}
}

static int guest(const char *image, size_t bytes)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, file, irq;
	struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid;
	struct { struct kvm_msrs head; struct kvm_msr_entry entry; } msrs = {
		.head.nmsrs = 1, .entry = { .index = 0x2ff, .data = 0x806 } };
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	struct kvm_segment data = { .limit = ~0u, .selector = 0x18, .type = 3,
				    .present = 1, .s = 1, .db = 1, .g = 1 };
	struct kvm_lapic_state lapic;
	struct kvm_irqfd irqfd = { .gsi = 4 };
	struct kvm_enable_cap enforce = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = { 1 } };
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = 0x100020, .rflags = 2, .rax = 0x2badb002, .rbx = 0x7000 };
	struct kvm_userspace_memory_region region = { .memory_size = bytes };
	struct vcpu vcpu;
	pthread_t thread;
	char *memory;

	must(kvm >= 0, "/dev/kvm");
	CALL(kvm, KVM_GET_API_VERSION, 0);
	CALL(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(memory != MAP_FAILED, "mmap");
	file = open(image, O_RDONLY | O_CLOEXEC);
	must(file >= 0 && read(file, memory + 0x100000, 4096) > 32, image);
	cpuid.head.nent = 256;
	CALL(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
	vm = CALL(kvm, KVM_CREATE_VM, 0);
	region.userspace_addr = (uintptr_t)memory;
	CALL(vm, KVM_SET_USER_MEMORY_REGION, &region);
	CALL(vm, KVM_CREATE_IRQCHIP, 0);
	CALL(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
	CALL(vm, KVM_CREATE_PIT2, &pit);
	irqfd.fd = irq = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	must(irq >= 0, "eventfd");
	CALL(vm, KVM_IRQFD, &irqfd);
	CALL(kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER);
	vcpu.fd = CALL(vm, KVM_CREATE_VCPU, 0);
	vcpu.run = mmap(NULL, CALL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
			PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.fd, 0);
	must(vcpu.run != MAP_FAILED, "mmap");
	CALL(vcpu.fd, KVM_GET_LAPIC, &lapic);
	memcpy(lapic.regs + 0xf0, &(uint32_t){ 0x1ff }, 4);
	CALL(vcpu.fd, KVM_SET_LAPIC, &lapic);
	CALL(vcpu.fd, KVM_ENABLE_CAP, &enforce);
	CALL(vcpu.fd, KVM_SET_CPUID2, &cpuid);
	CALL(vcpu.fd, KVM_SET_MSRS, &msrs);
	CALL(vcpu.fd, KVM_GET_LAPIC, &lapic);
	memcpy(lapic.regs + 0x350, &(uint32_t){ 0x700 }, 4);
	memcpy(lapic.regs + 0x360, &(uint32_t){ 0x400 }, 4);
	CALL(vcpu.fd, KVM_SET_LAPIC, &lapic);
	CALL(vcpu.fd, KVM_GET_STATS_FD, 0);
	cpuid.head.nent = 256;
	CALL(vcpu.fd, KVM_GET_CPUID2, &cpuid);
	CALL(vcpu.fd, KVM_GET_SREGS, &sregs);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cs = data;
	sregs.cs.selector = 0x20;
	sregs.cs.type = 0xb;
	sregs.cr0 = 0x21;
	CALL(vcpu.fd, KVM_SET_SREGS, &sregs);
	CALL(vcpu.fd, KVM_SET_REGS, &regs);
	must(pthread_create(&thread, NULL, run, &vcpu) == 0, "thread");
	pthread_join(thread, NULL);
	return 0;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}

/* Microseconds to the first byte. */
static double first_byte(char **command)
{
	double begun = now(), took;
	int ends[2];
	char byte;
	pid_t child;

	must(pipe2(ends, O_CLOEXEC) == 0, "pipe");
	child = fork();
	must(child >= 0, "fork");
	if (child == 0) {
		dup2(ends[1], 1);
		execv(command[0], command);
		perror(command[0]);
		_exit(127);
	}
	close(ends[1]);
	if (read(ends[0], &byte, 1) != 1) {
		fprintf(stderr, "%s printed nothing\n", command[0]);
		exit(1);
	}
	took = now() - begun;
	while (read(ends[0], &byte, 1) > 0)
		;
	close(ends[0]);
	waitpid(child, NULL, 0);
	return took;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int compare(int n, char **a)
{
	double *times[2] = { calloc(n, sizeof(double)), calloc(n, sizeof(double)) };
	char **b = a;

	while (*b && strcmp(*b, "--") != 0)
		b++;
	if (!*b)
		return 2;
	*b++ = NULL;
	for (int i = 0; i < n; i++) {
		times[0][i] = first_byte(a);
		times[1][i] = first_byte(b);
	}
	for (int i = 0; i < 2; i++)
		qsort(times[i], n, sizeof(double), ascending);
	for (int i = 0; i < 2; i++) {
		int at = i == 0 ? n / 2 : n / 10;

		printf("%s %.0f us, %.0f us, ratio %.2f%s", i == 0 ? "median" : "fastest tenth",
		       times[0][at], times[1][at], times[0][at] / times[1][at],
		       i == 0 ? "; " : "\n");
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "guest") == 0)
		return guest(argv[2], (size_t)atol(argv[3]) << 20);
	if (argc > 4 && strcmp(argv[1], "compare") == 0 && atoi(argv[2]) > 0)
		return compare(atoi(argv[2]), argv + 3);
	fprintf(stderr, "usage: boot-time guest IMAGE MIB | boot-time compare N A... -- B...\n");
	return 2;
}
