/// The purpose of an access.
enum AccessKind: Sendable {
  case read, write, execute
}

/// The result of the CPU's walk.
enum Stage2Translation {
  /// The physical address.
  case physical(PhysicalAddress)
  /// A stage-2 fault, and the level of the entry that refused.
  case fault(FaultStatus, level: Int)
}

extension Stage2PageTable {
  /// The CPU's own walk at EL1 (Arm ARM, `AArch64.S2Translate`).
  ///
  /// The model has no TLB, so each access sees the tables as they are. On the recorded machines, the guest sees the same after
  /// each exit to the hypervisor.
  @inline(__always)
  func translate(
    _ ipa: IntermediatePhysicalAddress, for access: AccessKind, cpu: CPUModel
  ) -> Stage2Translation {
    guard ipa.fits(bits: ipaBits) else {
      return .fault(.translation, level: 0)
    }
    let leaf = lastEntry(for: ipa)
    let descriptor = leaf.descriptor
    let level = leaf.level
    guard descriptor.isLeaf(level: level), granule.allowsLeaf(level: level) else {
      return .fault(.translation, level: level)
    }
    guard descriptor.rawValue & Stage2Descriptor.accessFlag != 0 else {
      return .fault(.accessFlag, level: level)
    }
    guard descriptor.permits(access, cpu: cpu) else {
      return .fault(.permission, level: level)
    }
    let size = granule.size(level: level)
    return .physical(
      descriptor.outputAddress(granule).aligned(to: size) &+ ipa.offset(in: size))
  }
}

extension Stage2PageTable {
  /// The same walk of a CPU that sets the access flag itself, for an entry without the flag. An access without permission leaves the
  /// flag as it is.
  @inline(never)
  mutating func translateSettingAccessFlag(
    _ ipa: IntermediatePhysicalAddress, for access: AccessKind, cpu: CPUModel
  ) -> Stage2Translation {
    let (entry, level) = lastReference(for: ipa)
    let descriptor = memory[entry]
    guard descriptor.permits(access, cpu: cpu) else { return .fault(.permission, level: level) }
    memory.makeUnique()
    memory[entry] = Stage2Descriptor(rawValue: descriptor.rawValue | Stage2Descriptor.accessFlag)
    return translate(ipa, for: access, cpu: cpu)
  }
}

extension Stage2Descriptor {
  /// S2AP, and XN for an instruction fetch, at EL1 (Arm ARM D8.4, "Stage 2 permissions").
  @inline(__always)
  func permits(_ access: AccessKind, cpu: CPUModel) -> Bool {
    switch access {
    case .read: return rawValue & Self.read != 0
    case .write: return rawValue & Self.write != 0
    case .execute:
      guard rawValue & Self.read != 0 else { return false }
      let xn1 = rawValue & Self.executeNever != 0
      let xn0 = rawValue & Self.executeNever0 != 0
      // XN[1:0] = 0b00 and 0b11 let EL1 execute, 0b01 and 0b10 do not.
      return cpu.hasXNX ? xn1 == xn0 : !xn1
    }
  }
}
