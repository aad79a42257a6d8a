/*
 * Prints what KVM_GET_SUPPORTED_CPUID answers, in the raw format of cpuid(1):
 * the host's word on what a guest may be shown, for use as test data.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>

#define ENTRIES 256

int main(void)
{
	struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + ENTRIES * sizeof(cpuid->entries[0]));
	struct utsname name;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (cpuid == NULL || kvm < 0) {
		fprintf(stderr, "/dev/kvm: %s\n", strerror(errno));
		return 1;
	}
	cpuid->nent = ENTRIES;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
		fprintf(stderr, "KVM_GET_SUPPORTED_CPUID: %s\n", strerror(errno));
		return 1;
	}
	uname(&name);
	printf("# KVM_GET_SUPPORTED_CPUID, %u entries; Linux %s, %s\n",
	       cpuid->nent, name.release, name.version);
	printf("CPU:\n");
	for (unsigned int i = 0; i < cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		printf("   0x%08x 0x%02x: eax=0x%08x ebx=0x%08x ecx=0x%08x edx=0x%08x\n",
		       e->function, e->index, e->eax, e->ebx, e->ecx, e->edx);
	}
	return 0;
}
