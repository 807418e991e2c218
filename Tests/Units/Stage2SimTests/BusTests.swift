import Testing
import VirtWalkerDevice

@testable import Stage2Sim

@Suite struct BusTests {
  /// A device that a user of the library could write: two bytes of memory, and a register that refuses accesses.
  private final class Scratch: MMIODevice {
    var accesses: [MMIOAccess] = []
    var value: UInt64 = 0

    func access(
      _ access: MMIOAccess, from vcpu: inout VCPU, kvm: inout KVM
    ) throws(KernelError) -> MMIOResponse {
      accesses.append(access)
      if access.address == 0x0900_0008 { throw .badAddress }
      if access.address == 0x0900_0009 { return .declined }
      if access.isWrite { value = access.data }
      return access.isWrite ? .done : .value(value)
    }
  }

  private let scratch = Scratch()
  private var machine: VirtualMachine

  init() throws {
    machine = try .bootedWithHideSeek()
    machine.register(scratch, at: [MMIORegion(address: 0x0900_0000, length: 16)])
  }

  @Test mutating func deviceTakesWhatLiesInItsRegion() {
    machine.setRegister(3, to: 0x1_2345_f687)
    #expect(
      machine.run(.access(.store(.halfword, from: 3), address: 0x0900_0002)) == .retired)
    #expect(
      scratch.accesses == [
        MMIOAccess(isWrite: true, address: 0x0900_0002, length: 2, data: 0xf687, register: 3)
      ])
    #expect(machine.run(.access(.load(.halfword, to: 4), address: 0x0900_0002)) == .retired)
    #expect(machine.vcpu[4] == 0xf687)
  }

  /// The kernel sign-extends the value, and then truncates it again (recorded in guest-a76-plus-3).
  @Test mutating func readIsZeroExtendedWhateverTheLoadSays() {
    scratch.value = 0xf687
    var load = LoadStore(isStore: false, size: .halfword, register: 4, isSignExtending: true)
    for is64Bit in [false, true] {
      load.is64Bit = is64Bit
      machine.run(.access(load, address: 0x0900_0000))
      #expect(machine.vcpu[4] == 0xf687)
    }
  }

  @Test mutating func accessAcrossTheEndOfARegionIsNotTheDevices() {
    machine.register(scratch, at: [MMIORegion(address: 0x0900_1000, length: 4)])
    let result = machine.run(.access(.load(.doubleword, to: 0), address: 0x0900_1000))
    #expect(
      result == .mmio(MMIOExit(isWrite: false, address: 0x0900_1000, length: 8, data: 0)))
    #expect(scratch.accesses.isEmpty)
  }

  @Test mutating func errorOfADeviceEndsTheRunAndTheGuestStays() {
    let pc = machine.vcpu.pc
    #expect(
      machine.run(.access(.load(.byte, to: 0), address: 0x0900_0008)) == .failed(.badAddress))
    #expect(machine.vcpu.pc == pc)
  }

  @Test mutating func declinedAccessGoesToTheNextDeviceAndThenToTheVMM() {
    let second = Scratch()
    let load = GuestInstruction.access(.load(.byte, to: 0), address: 0x0900_0009)
    #expect(
      machine.run(load)
        == .mmio(MMIOExit(isWrite: false, address: 0x0900_0009, length: 1, data: 0)))
    machine.completeMMIO()
    machine.register(second, at: [MMIORegion(address: 0x0900_0009, length: 1)])
    machine.run(load)
    #expect(second.accesses.count == 1)
  }

  @Test mutating func unclaimedReadIsCompletedByTheVMM() {
    let pc = machine.vcpu.pc
    let load = LoadStore(isStore: false, size: .byte, register: 5, isSignExtending: true)
    let exit = MMIOExit(isWrite: false, address: 0x0c00_0000, length: 1, data: 0)
    #expect(machine.run(.access(load, address: 0x0c00_0000)) == .mmio(exit))
    #expect(machine.vcpu.pc == pc)
    machine.completeMMIO(data: 0x80)
    #expect(machine.vcpu.pc == pc + 4)
    #expect(machine.vcpu[5] == 0x80)
    machine.completeMMIO(data: 1)
    #expect(machine.vcpu.pc == pc + 4)
  }

  @Test mutating func hookLogsEachAccessInItsWindow() {
    let trace = Trace()
    machine.observer = trace
    machine.run(.access(.load(.byte, to: 0), address: .init(flat: HideSeek.seekAddress)))
    machine.run(.access(.load(.byte, to: 0), address: .init(flat: HideSeek.hideAddress + 2)))
    machine.run(.access(.load(.byte, to: 0), address: .init(flat: HideSeek.hideAddress + 3)))
    machine.completeMMIO()
    machine.run(.access(.store(.word, from: 0), address: .init(flat: HideSeek.hideAddress)))
    machine.run(
      .access(
        LoadStore(isStore: false, size: .word, register: 0, form: .pair(second: 1)),
        address: .init(flat: HideSeek.hideAddress)))
    #expect(
      trace.messages == [
        "MMIO to HIDE and SEEK register detected, len: 1",
        "MMIO to HIDE and SEEK register detected, len: 1",
        "MMIO to HIDE and SEEK register detected, len: 4",
        "more than one byte being read/write, ERROR",
        "Data abort outside memslots with no valid syndrome info",
      ])
  }

  /// The names of the ``Named`` devices that were asked, in order.
  private final class Calls {
    var names: [String] = []
  }

  /// A device that notes its name when it is asked, and gives `answer`.
  private struct Named: MMIODevice {
    let name: String
    let calls: Calls
    var answer = MMIOResponse.declined

    mutating func access(
      _ access: MMIOAccess, from vcpu: inout VCPU, kvm: inout KVM
    ) -> MMIOResponse {
      calls.names.append(name)
      return answer
    }
  }

  /// A hook that notes its name when it is asked, and answers a load with a value if it has one.
  private struct NamedHook: MMIOHook {
    let name: String
    let calls: Calls
    var value: UInt64?

    mutating func ioMemAbort(
      _ access: MMIOAccess, vcpu: inout VCPU, kvm: inout KVM
    ) -> MMIOHookResult {
      calls.names.append(name)
      guard let value else { return .notHandled }
      vcpu[access.register] = value
      vcpu.incrementPC()
      return .handled
    }
  }

  /// `io_mem_abort` calls the hook before it looks at the bus.
  @Test(arguments: [
    MMIORegion(address: 0x0aff_fff0, length: 0x20), MMIORegion(address: 0, length: 1 << 30),
    MMIORegion(address: HideSeek.hideAddress, length: 0),
    MMIORegion(address: HideSeek.seekAddress, length: 1),
  ])
  func deviceOnTheBusIsBehindTheHook(region: MMIORegion) throws {
    for isFirst in [true, false] {
      let calls = Calls()
      let device = Named(name: "device", calls: calls, answer: .value(0x77))
      var machine = try VirtualMachine()
      if isFirst { machine.register(device, at: [region]) }
      machine.add(HideSeek())
      if !isFirst { machine.register(device, at: [region]) }
      machine.run(.nop, at: .init(flat: HideSeek.target))
      machine.setRegister(3, to: 0x41)
      machine.run(.access(.store(.byte, from: 3), address: .init(flat: HideSeek.hideAddress)))
      machine.run(.access(.load(.byte, to: 4), address: .init(flat: HideSeek.seekAddress)))
      #expect(machine.vcpu[4] == 0x41)
      machine.run(.access(.store(.byte, from: 3), address: .init(flat: HideSeek.hideAddress + 2)))
      let tooLong = GuestInstruction.access(
        .load(.word, to: 4), address: .init(flat: HideSeek.hideAddress))
      #expect(machine.run(tooLong) == .failed(.invalidArgument))
      #expect(calls.names.isEmpty)
    }
  }

  /// If one hook declines an access, the next hook is asked. If all hooks decline, the access goes to the bus.
  @Test mutating func declinedByHooksIsTheBus() {
    let trace = Trace()
    let calls = Calls()
    let region = MMIORegion(address: 0x0900_1000, length: 16)
    machine.register(
      Named(name: "device", calls: calls, answer: .value(0x1234)), at: [region])
    machine.add(NamedHook(name: "first", calls: calls))
    machine.add(NamedHook(name: "second", calls: calls))
    machine.observer = trace
    let load = GuestInstruction.access(.load(.halfword, to: 4), address: 0x0900_1000)
    machine.run(load)
    #expect(machine.vcpu[4] == 0x1234)
    #expect(calls.names == ["first", "second", "device"])
    #expect(
      trace.mmio == [
        .mmio(.unsatisfiedRead, length: 2, address: 0x0900_1000, value: 0),
        .mmio(.read, length: 2, address: 0x0900_1000, value: 0x1234),
      ])

    // An access that a hook handles does not reach the kernel's tracepoint. The hook sets the whole register.
    machine.add(NamedHook(name: "third", calls: calls, value: 0x5_6789))
    machine.setRegister(4, to: .max)
    machine.run(load)
    #expect(machine.vcpu[4] == 0x5_6789)
    #expect(calls.names.suffix(3) == ["first", "second", "third"])
    #expect(trace.mmio.count == 2)
  }

  /// If a hook does not move the program counter, the guest stays at the instruction, as in the kernel.
  @Test mutating func hookThatForgetsTheProgramCounter() {
    struct Forgetful: MMIOHook {
      mutating func ioMemAbort(
        _ access: MMIOAccess, vcpu: inout VCPU, kvm: inout KVM
      ) -> MMIOHookResult { .handled }
    }
    machine.add(Forgetful())
    let pc = machine.vcpu.pc
    let result = machine.run(.access(.load(.byte, to: 4), address: 0x0900_1000))
    #expect(result == .livelock(machine.vcpu.fault))
    #expect(machine.vcpu.pc == pc)
  }

  /// A bus with regions that overlap, and the devices that are asked for a byte at `address`.
  struct Overlap: Sendable {
    let regions: KeyValuePairs<String, Range<UInt64>>
    let address: UInt64
    let asked: [String]
  }

  /// Devices are asked in the order in which `kvm_io_bus_register_dev` puts them into the bus.
  @Test(arguments: [
    Overlap(regions: ["a": 0x10..<0x14, "b": 0..<0x20], address: 0x12, asked: ["a", "b"]),
    Overlap(regions: ["b": 0..<0x20, "a": 0x10..<0x14], address: 0x12, asked: ["b", "a"]),
    Overlap(regions: ["a": 0x10..<0x14, "b": 0..<0x20], address: 2, asked: ["b"]),
    Overlap(regions: ["a": 1..<2, "b": 1..<2, "c": 1..<2], address: 1, asked: ["a", "b", "c"]),
    Overlap(regions: ["c": 1..<5, "b": 1..<9, "a": 1..<3], address: 1, asked: ["a", "c", "b"]),
    Overlap(regions: ["b": 16..<20, "a": 0..<4], address: 16, asked: ["b"]),
    // A region of length 0 contains only accesses that begin at its address.
    Overlap(regions: ["a": 8..<8, "b": 0..<16], address: 8, asked: ["a", "b"]),
    Overlap(regions: ["b": 0..<16, "a": 8..<8], address: 8, asked: ["b", "a"]),
    Overlap(regions: ["a": 8..<8, "b": 8..<8], address: 8, asked: ["a", "b"]),
    Overlap(regions: ["a": 8..<8, "b": 0..<16], address: 9, asked: ["b"]),
    // The kernel's binary search looks at b first. Since b ends before the access, the search continues only after b.
    Overlap(regions: ["a": 0..<32, "b": 1..<2, "c": 2..<3], address: 8, asked: []),
  ])
  func regionsThatOverlap(overlap: Overlap) throws {
    let calls = Calls()
    let base: IntermediatePhysicalAddress = 0x0900_0000
    var machine = try VirtualMachine.bootedWithHideSeek()
    for (name, range) in overlap.regions {
      machine.register(
        Named(name: name, calls: calls),
        at: [
          MMIORegion(
            address: base + range.lowerBound, length: range.upperBound - range.lowerBound)
        ])
    }
    let address = base + overlap.address
    let result = machine.run(.access(.load(.byte, to: 0), address: .init(flat: address)))
    #expect(calls.names == overlap.asked)
    #expect(result == .mmio(MMIOExit(isWrite: false, address: address, length: 1, data: 0)))
  }

  /// The end of such a region wraps in C, and is then before the start. No device is asked, and nothing traps.
  @Test mutating func regionBeyondTheLastAddress() {
    let calls = Calls()
    let device = Named(name: "device", calls: calls)
    let region = MMIORegion(address: 0x0900_1000, length: .max)
    machine.register(device, at: [region])
    let load = GuestInstruction.access(.load(.word, to: 0), address: 0x0900_1000)
    #expect(
      machine.run(load)
        == .mmio(MMIOExit(isWrite: false, address: 0x0900_1000, length: 4, data: 0)))
    #expect(calls.names.isEmpty)
  }
}

extension Trace {
  /// The events of the kernel's tracepoint kvm_mmio.
  fileprivate var mmio: [Tracepoint] {
    events.compactMap {
      if case .tracepoint(.mmio(let stage, let length, let address, let value)) = $0 {
        .mmio(stage, length: length, address: address, value: value)
      } else {
        nil
      }
    }
  }
}
