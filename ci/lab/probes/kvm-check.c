/*
 * Shows that /dev/kvm here is complete, with no code of the workspace in
 * between: a guest of a few bytes halts, calls the hypervisor and gets its
 * answers, in KVM and, where it has the Xen interface, in this process.
 * Prints one "name value" a line; exits with 1 where an answer is wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define CODE 0x1000u
/* No Linux header has a hypercall of this number. */
#define UNKNOWN_CALL 0x63u
#define XEN_RESULT 0x5eedu

static int wrong;

static int call(const char *name, int result)
{
	if (result < 0) {
		printf("%s failed: %s\n", name, strerror(errno));
		wrong = 1;
	}
	return result;
}

static void expect(const char *name, uint64_t value, uint64_t wanted)
{
	printf("%s %#llx\n", name, (unsigned long long)value);
	if (value != wanted) {
		printf("  but wanted %#llx\n", (unsigned long long)wanted);
		wrong = 1;
	}
}

/* A one-vCPU VM in real mode, no interrupt controller, one page of memory. */
struct guest {
	int vm, vcpu;
	struct kvm_run *run;
};

static struct guest create(int kvm, const uint8_t *code, size_t size)
{
	struct guest g = { .vm = call("KVM_CREATE_VM", ioctl(kvm, KVM_CREATE_VM, 0)) };
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region region = {
		.guest_phys_addr = CODE,
		.memory_size = 4096,
		.userspace_addr = (uintptr_t)page,
	};
	struct kvm_sregs sregs;

	memcpy(page, code, size);
	call("KVM_SET_USER_MEMORY_REGION",
	     ioctl(g.vm, KVM_SET_USER_MEMORY_REGION, &region));
	g.vcpu = call("KVM_CREATE_VCPU", ioctl(g.vm, KVM_CREATE_VCPU, 0));
	g.run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
		     PROT_READ | PROT_WRITE, MAP_SHARED, g.vcpu, 0);
	call("KVM_GET_SREGS", ioctl(g.vcpu, KVM_GET_SREGS, &sregs));
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	call("KVM_SET_SREGS", ioctl(g.vcpu, KVM_SET_SREGS, &sregs));
	return g;
}

/* Enters the guest at its start with a hypercall's number in eax. */
static void enter(struct guest *g, uint64_t rax)
{
	struct kvm_regs regs = { .rip = CODE, .rflags = 2, .rax = rax };

	call("KVM_SET_REGS", ioctl(g->vcpu, KVM_SET_REGS, &regs));
	call("KVM_RUN", ioctl(g->vcpu, KVM_RUN, 0));
}

static uint64_t rax(struct guest *g)
{
	struct kvm_regs regs;

	call("KVM_GET_REGS", ioctl(g->vcpu, KVM_GET_REGS, &regs));
	return regs.rax;
}

int main(void)
{
	static const uint8_t vmmcall[] = { 0x0f, 0x01, 0xd9, 0xf4 }; /* vmmcall; hlt */
	static const uint8_t vmcall[] = { 0x0f, 0x01, 0xc1, 0xf4 }; /* vmcall; hlt */
	struct guest g;
	int kvm, xen;

	setvbuf(stdout, NULL, _IOLBF, 0);
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (call("/dev/kvm", kvm) < 0)
		return 1;
	expect("api", ioctl(kvm, KVM_GET_API_VERSION, 0), KVM_API_VERSION);

	g = create(kvm, vmmcall, sizeof(vmmcall));
	if (wrong)
		return 1;
	enter(&g, KVM_HC_KICK_CPU);
	expect("hlt_exit", g.run->exit_reason, KVM_EXIT_HLT);
	expect("vmmcall_kick_cpu", rax(&g), 0);
	enter(&g, UNKNOWN_CALL);
	expect("vmmcall_unknown", rax(&g), (uint32_t)-KVM_ENOSYS);

	g = create(kvm, vmcall, sizeof(vmcall));
	enter(&g, KVM_HC_KICK_CPU);
	expect("vmcall_kick_cpu", rax(&g), 0);

	xen = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_XEN_HVM);
	printf("xen_hvm %#x\n", xen);
	if (xen & KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL) {
		struct kvm_xen_hvm_config config = {
			.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
			.msr = 0x40000000,
		};

		g = create(kvm, vmmcall, sizeof(vmmcall));
		call("KVM_XEN_HVM_CONFIG", ioctl(g.vm, KVM_XEN_HVM_CONFIG, &config));
		enter(&g, KVM_HC_KICK_CPU);
		expect("xen_exit", g.run->exit_reason, KVM_EXIT_XEN);
		expect("xen_input", g.run->xen.u.hcall.input, KVM_HC_KICK_CPU);
		g.run->xen.u.hcall.result = XEN_RESULT;
		call("KVM_RUN", ioctl(g.vcpu, KVM_RUN, 0));
		expect("xen_then_hlt", g.run->exit_reason, KVM_EXIT_HLT);
		expect("xen_result", rax(&g), XEN_RESULT);
	}
	return wrong;
}
