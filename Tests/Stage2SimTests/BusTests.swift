import Testing

@testable import Stage2Sim

@Suite struct BusTests {
  /// A device of a library's user: two bytes of scratch memory, and a register that refuses.
  private final class Scratch: MMIODevice {
    var accesses: [MMIOAccess] = []
    var value: UInt64 = 0

    func access(
      _ access: MMIOAccess, from vcpu: inout VCPU, stage2: inout Stage2PageTable
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
    machine = try .booted()
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

  /// The kernel extends the sign, and then cuts it off again (recorded in guest-a76-plus-3).
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
    machine.run(.access(.load(.byte, to: 0), address: HideSeek.seekAddress))
    machine.run(.access(.load(.byte, to: 0), address: HideSeek.hideAddress + 2))
    machine.run(.access(.load(.byte, to: 0), address: HideSeek.hideAddress + 3))
    machine.completeMMIO()
    machine.run(.access(.store(.word, from: 0), address: HideSeek.hideAddress))
    machine.run(
      .access(
        LoadStore(isStore: false, size: .word, register: 0, form: .pair(second: 1)),
        address: HideSeek.hideAddress))
    #expect(
      trace.messages == [
        "MMIO to HIDE and SEEK register detected, len: 1",
        "MMIO to HIDE and SEEK register detected, len: 1",
        "MMIO to HIDE and SEEK register detected, len: 4",
        "more than one byte being read/write, ERROR",
        "Data abort outside memslots with no valid syndrome info",
      ])
  }
}
