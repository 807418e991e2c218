import Scenarios
import Stage2Sim

/// A size of the guest's address space, or of its pages.
private struct Size {
  let name: String
  let cpu: CPUModel
  var granule = Granule.kib4
  let ipaBits: Int
  /// Guest RAM in MiB.
  var memory: UInt64 = 64
  /// The number of pages in a block; nil for those of a huge page. The scenarios of some sizes have no huge page.
  var pagesInBlock: UInt64?
  var backings = [Backing.anonymous, .huge]

  var page: UInt64 { granule.pageSize }
  var block: UInt64 { pagesInBlock.map { $0 * page } ?? granule.blockSize }

  /// The line `machine …`. The recordings have the number of bits there, also if it is the usual one.
  func machine(_ backing: Backing) -> String {
    let machine = MachineDescription(
      VirtualMachine.Configuration(
        cpu: cpu, granule: granule, ipaBits: ipaBits, backing: backing, memorySize: memory << 20))
    let line = "\(machine)"
    return line.contains(" ipa=")
      ? line : line.replacing(" backing=", with: " ipa=\(ipaBits) backing=")
  }
}

private let sizes =
  [32, 36, 39].map { Size(name: "ipa-a76-\($0)", cpu: .cortexA76, ipaBits: $0) }
  + [42, 44].map { Size(name: "ipa-a72-\($0)", cpu: .cortexA72, ipaBits: $0) }
  + [Size(name: "ipa-max-48", cpu: .max, ipaBits: 48)]
  + [32, 40].map {
    Size(
      name: "granule-64K-a76-\($0)", cpu: .cortexA76, granule: .kib64, ipaBits: $0,
      pagesInBlock: 2, backings: [.anonymous, .memfd])
  }
  + [
    Size(
      name: "granule-16K-max-36", cpu: .max, granule: .kib16, ipaBits: 36, pagesInBlock: 2,
      backings: [.anonymous, .memfd]),
    // A huge page has 512 MiB with pages of 64K, and only hugetlbfs finds one.
    Size(
      name: "granule-64K-max-48", cpu: .max, granule: .kib64, ipaBits: 48, memory: 512,
      backings: [.anonymous, .hugetlb, .memfd, .file]),
  ]
  // A huge page has 32 MiB with pages of 16K.
  + [40, 48].map {
    Size(
      name: "granule-16K-max-\($0)", cpu: .max, granule: .kib16, ipaBits: $0,
      backings: Backing.allCases)
  }

/// A reduced set of steps for other sizes of the guest's address space and of the pages.
func otherSizes() -> [ScenarioFile] {
  sizes.flatMap { size in
    size.backings.map { backing in
      ScenarioFile(
        "\(size.name)-\(backing.rawValue)",
        "The life of hidden bytes, briefly, for another size.", machine: size.machine(backing),
        steps: accesses() + mapping(size) + logging() + sharing(size))
    }
  }
}

/// The guest's accesses.
@StepsBuilder private func accesses() -> [String] {
  seek
  load(target)
  seek
  hide(0x5a)
  store(target)
  seek
  for byte: UInt64 in [0x01, 0x02, 0x04, 0x08, 0x0c, 0xff] {
    hide(byte)
    load(target)
    store(target)
    fetch(target)
    seek
  }
}

/// The host takes mappings and permissions away.
@StepsBuilder private func mapping(_ size: Size) -> [String] {
  load(target + size.page)
  host("madvise dontneed", target + size.page, size.page)
  seek
  load(target + size.page)
  hide(0xa1)
  host("madvise dontneed", target, size.page)
  seek
  load(target)
  store(target)
  hide(0xa2)
  host("mprotect ro", target, size.block)
  host("mprotect rw", target, size.block)
  seek
  store(target)
}

/// The host logs dirty pages, and makes a page old.
@StepsBuilder private func logging() -> [String] {
  hide(0xa3)
  host("dirty-log on")
  store(target)
  seek
  hide(0xb7)
  host("dirty-log get")
  store(target)
  seek
  host("dirty-log off")
  host("age", target)
  hide(0xa4)
  load(target)
  seek
}

/// The VMM has a child, then no slot, then no memory; at the end are accesses that KVM does not complete.
@StepsBuilder private func sharing(_ size: Size) -> [String] {
  host("fork")
  load(target)
  hide(0xa5)
  store(target)
  seek
  host("end-fork")
  store(target)
  hide(0xa6)
  host("slot delete")
  host("slot add")
  load(target)
  hide(0xa7)
  host("madvise dontneed", target, size.block)
  store(target)
  seek
  load(unclaimed)
  guest("ldp w0,w2,[A]", at: hideRegister)
  guest("strh w0,[A]", at: hideRegister)
}
