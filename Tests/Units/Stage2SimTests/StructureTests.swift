import Testing
import VirtWalkerDevice

@testable import Stage2Sim

@Suite struct StructureTests {
  /// Arm ARM D8.2.7: up to 16 concatenated start tables. KVM uses at least two levels.
  @Test(arguments: [
    (32, 2, 4), (34, 2, 16), (35, 1, 1), (39, 1, 1), (40, 1, 2), (43, 1, 16), (44, 0, 1),
    (48, 0, 1),
  ])
  func startLevel(ipaBits: Int, level: Int, tables: Int) {
    let table = Stage2PageTable(ipaBits: ipaBits)
    #expect(table.startLevel == level)
    #expect(table.rootTables == tables)
    #expect(table.memory.pagesInUse == tables)
  }

  @Test func granuleSizes() {
    let sizes: [UInt64] = [0x80_0000_0000, 0x4000_0000, 0x20_0000, 0x1000]
    let allowLeaves = [false, true, true, true]
    for level in 0...3 {
      #expect(Granule.kib4.size(level: level) == sizes[level])
      #expect(Granule.kib4.allowsLeaf(level: level) == allowLeaves[level])
    }
  }

  /// The syndrome of the driver's two instructions, in the layout of ESR_EL2 from the Arm ARM.
  @Test func syndromeOfTheDriversAccesses() throws {
    var machine = try VirtualMachine.bootedWithHideSeek()
    machine.run(.access(.store(.byte, from: 7), address: .init(flat: HideSeek.hideAddress)))
    #expect(machine.vcpu.fault.syndrome.rawValue == 0x9307_0045)
    #expect(machine.vcpu.fault.hpfar == 0xb0000)
    machine.run(.access(.load(.byte, to: 0), address: .init(flat: HideSeek.seekAddress)))
    #expect(machine.vcpu.fault.syndrome.rawValue == 0x9300_0005)
    #expect(machine.vcpu.fault.hpfar == 0xb0000)
    #expect(machine.vcpu.fault.far == 0x0b00_0001)
  }

  @Test func syndromeFields() {
    let access = LoadStore(
      isStore: false, size: .halfword, register: 19, isSignExtending: true, is64Bit: true,
      isAcquireRelease: true)
    let syndrome = ExceptionSyndrome(dataAbort: .permission, level: 3, access: access)
    #expect(syndrome.rawValue == 0x9373_c00f)
    #expect(syndrome.isValid && syndrome.isSignExtending && syndrome.is64Bit)
    #expect(!syndrome.isWrite && !syndrome.isInstructionAbort)
    #expect(syndrome.accessSize == 2 && syndrome.register == 19)
    #expect(syndrome.faultStatus == .permission && syndrome.faultLevel == 3)

    let pair = LoadStore(isStore: true, size: .word, register: 3, form: .pair(second: 4))
    #expect(
      ExceptionSyndrome(dataAbort: .translation, level: 1, access: pair).rawValue == 0x9200_0045)
    #expect(
      ExceptionSyndrome(instructionAbort: .permission, level: 2).rawValue == 0x8200_000e)
  }

  @Test func faultAddressJoinsPageAndOffset() {
    let fault = FaultInfo(
      syndrome: ExceptionSyndrome(rawValue: 0), far: 0xffff_8000_0800_0abc, ipa: 0x0b00_0def)
    #expect(fault.hpfar == 0xb0000)
    #expect(fault.ipa == 0x0b00_0abc)
  }

  /// XN[1:0] at EL1, on both CPUs (Arm ARM D8.4, "Stage 2 permissions").
  @Test(arguments: [
    (0b00, true, true), (0b01, true, false), (0b10, false, false), (0b11, false, true),
  ])
  func executePermission(xn: UInt64, onA72: Bool, onA76: Bool) {
    let descriptor = Stage2Descriptor(rawValue: xn << 53 | Stage2Descriptor.read)
    #expect(descriptor.permits(.execute, cpu: .cortexA72) == onA72)
    #expect(descriptor.permits(.execute, cpu: .cortexA76) == onA76)
  }

  @Test func hiddenByteIsBits58To51() {
    var descriptor = Stage2Descriptor(rawValue: .max)
    descriptor.hiddenByte = 0
    #expect(descriptor.rawValue == 0xf807_ffff_ffff_ffff)
    descriptor.hiddenByte = 0xa5
    #expect(descriptor.rawValue == 0xfd2f_ffff_ffff_ffff)
    #expect(descriptor.hiddenByte == 0xa5)
  }
}
