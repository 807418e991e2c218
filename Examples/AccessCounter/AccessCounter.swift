// A device of your own in the hypervisor. It counts the rounds in which the guest has accessed each page. An access to a mapped page causes
// no event in stage 2, so the device makes all pages old at the end of a round. The next access to a page faults, and KVM makes the page
// young again. At the end of the round, the device counts each young page in the software bits of its entry. swift run access-counter
import Stage2Sim

/// The device: a store ends a round, and a load of byte N gives the count of page N, at most 15.
struct AccessCounter: MMIODevice, Stage2Visitor {
  static let memory = VirtualMachine.Configuration.memoryBase
  static let registers = MMIORegion(address: 0x0900_0000, length: 1024)
  static let flags = WalkFlags.leaf

  mutating func access(
    _ access: MMIOAccess, from vcpu: inout VCPU, kvm: inout KVM
  ) throws(KernelError) -> MMIOResponse {
    do {
      let page = access.address - Self.registers.address
      if access.isWrite {
        try kvm.stage2.walk(
          address: Self.memory, size: Self.registers.length << 12, visitor: &self)
      }
      let entry = try kvm.stage2.leaf(for: Self.memory + page << 12).descriptor
      return .value((entry.rawValue & Stage2Descriptor.software) >> 55)
    } catch {
      throw error.code
    }
  }

  func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    var entry = table[visit.entry]
    guard entry.isValid, entry.rawValue & Stage2Descriptor.accessFlag != 0 else { return }
    entry.rawValue &= ~Stage2Descriptor.accessFlag
    if ~entry.rawValue & Stage2Descriptor.software != 0 { entry.rawValue += 1 << 55 }
    table[visit.entry] = entry
  }
}

final class FaultCounter: MachineObserver {
  var counts: [UInt64: Int] = [:]
  func observe(_ event: MachineEvent) {
    guard case .abort(let fault) = event, fault.syndrome.faultStatus == .accessFlag else { return }
    counts[(fault.ipa - AccessCounter.memory) >> 12, default: 0] += 1
  }
}

var machine = try VirtualMachine.booted(.init(backing: .anonymous))
let faults = FaultCounter()
machine.observer = faults
machine.register(AccessCounter(), at: [AccessCounter.registers])
for round in 1...20 as ClosedRange<UInt64> {
  for page in 1...5 as ClosedRange<UInt64> where round % page == 0 {
    machine.run(.access(.store(.byte, from: 0), address: 0x4000_0000 + page << 12))
  }
  machine.run(.access(.store(.byte, from: 0), address: 0x0900_0000))
}
print("page rounds access-flag-faults")
for page in [0, 1, 2, 3, 4, 5, 512] as [UInt64] {  // 512: the guest's kernel runs there.
  machine.run(.access(.load(.byte, to: 1), address: 0x0900_0000 + page))
  print(page, machine.vcpu[1], faults.counts[page, default: 0])
}
