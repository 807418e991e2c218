/* A hook that answers a load from SEEK with a byte that is part of the source, so that a reader sees which source runs. */
#include <linux/kvm_host.h>
#include <asm/kvm_emulate.h>

#define ANSWER 'A'

int answer(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa, bool is_write, int len, unsigned long rt)
{
	if (is_write || fault_ipa != 0x0b000001)
		return 0;
	vcpu_set_reg(vcpu, rt, ANSWER);
	kvm_incr_pc(vcpu);
	return 1;
}
