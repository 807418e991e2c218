import Testing
import VirtWalkerDevice

@testable import Stage2Sim

@Suite struct MachineTests {
  private static let base = VirtualMachine.Configuration.memoryBase

  /// The leaf of IPA 0x40000000 when the guest loads the module, from the four whole systems that were booted.
  @Test(arguments: CPUModel.allCases, [(Backing.huge, 2, 0x7fd as UInt64), (.anonymous, 3, 0x7ff)])
  func bootedMachine(cpu: CPUModel, leaf: (backing: Backing, level: Int, attributes: UInt64)) throws
  {
    let machine = try VirtualMachine.bootedWithHideSeek(.init(cpu: cpu, backing: leaf.backing))
    let found = try machine.leaf(for: Self.base)
    #expect(found.level == leaf.level)
    // With FEAT_S2FWB, the memory type is 0b0110 instead of 0b1111.
    let attributes = cpu.hasFWB ? leaf.attributes & ~0x24 : leaf.attributes
    #expect(found.descriptor.rawValue & ~Granule.kib4.addressMask == attributes)
  }

  @Test(arguments: CPUModel.allCases, Backing.allCases)
  func everyByteComesBack(cpu: CPUModel, backing: Backing) throws {
    var machine = try VirtualMachine.bootedWithHideSeek(.init(cpu: cpu, backing: backing))
    let registers = try mapRegisters(of: &machine)
    #expect(try machine.readb(registers + 1) == 0)
    let before = try machine.leaf(for: Self.base).descriptor.rawValue
    for byte in UInt8.min...UInt8.max {
      try machine.writeb(byte, to: registers)
      #expect(try machine.readb(registers + 1) == byte)
      #expect(
        try machine.leaf(for: Self.base).descriptor.rawValue == before | UInt64(byte) << 51)
    }
  }

  @Test func memorySizesAreChecked() throws {
    let sizes = VirtualMachine.Configuration.memorySizes(ipaBits: 40)
    for size in [0, sizes.lowerBound - 4096, sizes.lowerBound + 1, 1 << 60] {
      #expect(throws: KernelError.invalidArgument) {
        try VirtualMachine(.init(memorySize: size))
      }
    }
    #expect(throws: KernelError.badAddress) {
      try VirtualMachine(.init(memorySize: sizes.upperBound + 4096))
    }
    for size in [sizes.lowerBound, sizes.upperBound] {
      for backing in Backing.allCases {
        var machine = try VirtualMachine.bootedWithHideSeek(
          .init(backing: backing, memorySize: size))
        // The first byte and the last byte of the memory.
        for address in [Self.base, Self.base + size - 1] {
          machine.setRegister(1, to: 0x5a)
          #expect(
            machine.run(.access(.store(.byte, from: 1), address: .init(flat: address))) == .retired)
          #expect(
            machine.run(.access(.load(.byte, to: 2), address: .init(flat: address))) == .retired)
          #expect(machine.vcpu[2] == 0x5a)
        }
      }
    }
  }

  /// A slot whose size is not a multiple of 2 MiB ends in pages, because a last block would reach beyond the slot.
  @Test func blockNeverReachesBeyondTheSlot() throws {
    var machine = try VirtualMachine.bootedWithHideSeek(.init(memorySize: 5 << 20))
    machine.run(.access(.load(.byte, to: 0), address: .init(flat: Self.base + 4 << 20)))
    #expect(try machine.leaf(for: Self.base + 4 << 20).level == 3)
    #expect(try machine.leaf(for: Self.base + 2 << 20).level == 2)
  }

  @Test func loadsExtendAsTheySay() throws {
    var machine = try VirtualMachine.bootedWithHideSeek()
    let address = Self.base + 0x20_0000
    machine.setRegister(1, to: 0xffee_ddcc_8899_aabb)
    machine.run(.access(.store(.doubleword, from: 1), address: .init(flat: address)))
    func load(_ access: LoadStore) -> UInt64 {
      machine.setRegister(0, to: .max)
      machine.run(.access(access, address: .init(flat: address)))
      return machine.vcpu[0]
    }
    #expect(load(.load(.byte, to: 0)) == 0xbb)
    #expect(load(.load(.word, to: 0)) == 0x8899_aabb)
    #expect(load(.load(.doubleword, to: 0)) == 0xffee_ddcc_8899_aabb)
    var signed = LoadStore(isStore: false, size: .halfword, register: 0, isSignExtending: true)
    #expect(load(signed) == 0xffff_aabb)
    signed.is64Bit = true
    #expect(load(signed) == 0xffff_ffff_ffff_aabb)
    #expect(
      load(LoadStore(isStore: false, size: .word, register: 0, form: .pair(second: 2)))
        == 0x8899_aabb)
    #expect(machine.vcpu[2] == 0xffee_ddcc)
  }

  @Test func zeroRegisterStaysZero() throws {
    var machine = try VirtualMachine.bootedWithHideSeek()
    machine.run(.access(.store(.doubleword, from: 31), address: .init(flat: Self.base)))
    machine.run(.access(.load(.doubleword, to: 31), address: .init(flat: Self.base)))
    #expect(machine.vcpu[31] == 0)
  }

  @Test func writeBackMovesTheBaseRegister() throws {
    var machine = try VirtualMachine.bootedWithHideSeek()
    machine.setRegister(2, to: 100)
    let store = LoadStore(
      isStore: true, size: .byte, register: 0, form: .writeBack(base: 2, increment: -1))
    #expect(machine.run(.access(store, address: .init(flat: Self.base))) == .retired)
    #expect(machine.vcpu[2] == 99)
  }

  /// Byte 0x04 is XN = 0b01: EL1 must not execute, and KVM clears a bit that is clear already.
  @Test func executingBehindByte04HangsWithXNX() throws {
    for (cpu, hangs) in [(CPUModel.cortexA72, false), (.cortexA76, true)] {
      var machine = try VirtualMachine.bootedWithHideSeek(.init(cpu: cpu))
      let registers = try mapRegisters(of: &machine)
      try machine.writeb(0x04, to: registers)
      let result = machine.run(.nop, at: .init(flat: Self.base))
      if hangs {
        guard case .livelock(let fault) = result else {
          Issue.record("no livelock: \(result)")
          continue
        }
        #expect(fault.syndrome.rawValue == 0x8200_000e)
        #expect(fault.ipa == Self.base)
      } else {
        #expect(result == .retired)
      }
      #expect(try machine.readb(registers + 1) == 0x04)
    }
  }

  @Test func addressesBeyondTheMachineGoBackToTheGuest() throws {
    let access = LoadStore.load(.byte, to: 0)
    for cpu in CPUModel.allCases {
      var machine = try VirtualMachine.bootedWithHideSeek(.init(cpu: cpu))
      func result(_ address: GuestVirtualAddress) -> RunResult {
        machine.run(.access(access, address: address))
      }
      func exception(_ syndrome: UInt64, _ address: GuestVirtualAddress) -> RunResult {
        .guestException(GuestException(syndrome: syndrome, address: address))
      }
      // For an address beyond the IPA size, but within the CPU's addresses, KVM injects an external abort.
      let beyond = GuestVirtualAddress(1 << 40)
      let syndrome: UInt64 = cpu == .cortexA76 ? 0x9600_0000 : 0xffff_ffff_9600_0010
      #expect(result(beyond) == exception(syndrome, beyond))
      // KVM's limit is 48 bits, also on a CPU that has 52.
      let sizeFault: UInt64 = cpu == .max ? 0xffff_ffff_9600_0000 : 0x9600_0000
      #expect(result(.init(1 << 48)) == exception(sizeFault, .init(1 << 48)))
      #expect(result(.init(1 << 52)) == exception(0x9600_0000, .init(1 << 52)))
      #expect(
        machine.run(.nop, at: 0x0c00_0000) == exception(0xffff_ffff_8600_0010, 0x0c00_0000))
    }
  }

  @Test func unalignedAccessGoesToTheGuest() throws {
    var machine = try VirtualMachine.bootedWithHideSeek()
    #expect(
      machine.run(.access(.load(.word, to: 0), address: .init(flat: Self.base + 2)))
        == .guestException(
          GuestException(syndrome: 0x9600_0021, address: .init(flat: Self.base + 2))))
  }

  @Test func storeToAReadOnlySlotIsMMIO() throws {
    var machine = try VirtualMachine.bootedWithHideSeek()
    try machine.addPrivateMemory(slot: 1, at: 0x0800_0000, size: 0x1000, flags: .readOnly)
    #expect(machine.run(.access(.load(.byte, to: 0), address: 0x0800_0000)) == .retired)
    machine.setRegister(0, to: 7)
    #expect(
      machine.run(.access(.store(.byte, from: 0), address: 0x0800_0000))
        == .mmio(MMIOExit(isWrite: true, address: 0x0800_0000, length: 1, data: 7)))
  }

  @Test func clearAccessFlagIsSetByTheNextAccess() throws {
    var machine = try VirtualMachine.bootedWithHideSeek()
    try machine.age(0)
    #expect(machine.run(.access(.load(.byte, to: 0), address: .init(flat: Self.base))) == .retired)
    #expect(machine.vcpu.fault.syndrome.faultStatus == .accessFlag)
    #expect(try machine.leaf(for: Self.base).descriptor.rawValue & 0xfff == 0x7fd)
  }

  @Test func copyIsASnapshot() throws {
    var machine = try VirtualMachine.bootedWithHideSeek()
    let registers = try mapRegisters(of: &machine)
    try machine.writeb(1, to: registers)
    var snapshot = machine
    try machine.writeb(2, to: registers)
    #expect(try snapshot.readb(registers + 1) == 1)
    #expect(try machine.readb(registers + 1) == 2)
  }

  @Test func ioremapRefusesWhatLinuxRefuses() throws {
    var machine = try VirtualMachine.bootedWithHideSeek()
    #expect(machine.ioremap(0x0b00_0000, size: 0) == nil)
    #expect(machine.ioremap(.init(.max), size: 2) == nil)
    #expect(machine.ioremap(.init(1 << 48), size: 1) == nil)
    #expect(machine.ioremap(Self.base, size: 1) == nil)
    // The vmalloc area has less than 128 TiB.
    #expect(machine.ioremap(0, size: 1 << 48) == nil)
    let mapped = machine.ioremap(0x0b00_0ffe, size: 4)
    let first = try #require(mapped)
    #expect(first.offset(in: 0x1000) == 0xffe)
    #expect(machine.stage1.translate(first + 3) == 0x0b00_1001)
    let second = try mapRegisters(of: &machine)
    #expect(machine.stage1.translate(second) == 0x0b00_0000)
  }

  /// Maps the registers as the driver does when it is loaded.
  private func mapRegisters(of machine: inout VirtualMachine) throws -> GuestVirtualAddress {
    let registers = machine.ioremap(HideSeek.hideAddress, size: 2)
    return try #require(registers)
  }
}
