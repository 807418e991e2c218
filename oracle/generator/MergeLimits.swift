import Scenarios
import Stage2Sim

// KSM shares a page 256 times, and then takes another page.

/// Scenarios with more equal pages than KSM lets share one page.
func mergeLimits() -> [ScenarioFile] {
  let merging = "KSM shares a page 256 times, and then takes another:"
  func story(
    _ name: String, _ purpose: String, backing: Backing = .anonymous, _ steps: [String]
  ) -> ScenarioFile {
    ScenarioFile(
      "merge-a76-\(name)", purpose,
      on: MachineDescription(.cortexA76, backing, memory: 8), steps: steps)
  }
  let counts =
    [256, 257, 258, 300, 512, 513, 514].map { (CPUModel.cortexA76, UInt64($0)) }
    + [(.cortexA72, 300), (.max, 300)]
  return counts.map { cpu, count in
    ScenarioFile(
      "merge-\(cpu.shortName)-\(count)", "\(merging) \(count) equal pages.",
      on: MachineDescription(cpu, .anonymous, memory: 8), steps: equalPages(count))
  } + [
    story("all-mapped", "\(merging) the guest has all of them.", allMapped),
    story("contents", "\(merging) each content has its own.", contents),
    story(
      "parted", "\(merging) what is parted and equal again goes where there is room.", parted),
    story("areas", "\(merging) two areas.", twoAreas),
    story("fork", "\(merging) a child has them, too.", childOfEqualPages),
    story(
      "fork-merged", "\(merging) a child has what was merged, beyond 256 of them.",
      childOfMergedPages),
    story(
      "order", "KSM scans the VMM after its child where it has come back to it.", orderOfScanning),
    story(
      "wiped-child", "KSM goes on scanning for a child whose mergeable memory was wiped.",
      wipedChild),
    story("huge", "\(merging) on huge memory.", backing: .huge, pagesOfBlocks),
    story("file", "\(merging) on file memory.", backing: .file, pagesOfBlocks),
    story(
      "untouched", "The zero page is no page that KSM could merge.", untouched),
    ScenarioFile(
      "merge-16K", "Pages of 16 KiB are shared 256 times, too.",
      on: MachineDescription(
        VirtualMachine.Configuration(
          cpu: .max, granule: .kib16, backing: .anonymous, memorySize: 16 << 20)),
      steps: pagesOf16K),
  ]
}

@StepsBuilder private func equalPages(_ count: UInt64) -> [String] {
  let last = count - 1
  host("madvise populate-write", pages: count)
  host("madvise mergeable", pages: count)
  load(pages: 0, 1, 2, 254, 255)
  load(nextBlock)
  hide(0x91)
  host("ksm")
  seek
  load(pages: 0, 1, 2, 254, 255, last - 1, last)
  hide(0x92)
  host("ksm")
  seek
  // Pages of the first frame and of the last frame get frames of their own, and are merged again.
  store(0x0, to: target)
  store(0x0, to: pageAddress(last))
  hide(0x93)
  host("ksm")
  seek
  load(pages: 0, last)
  host("madvise unmergeable", pages: count)
  load(pages: 0, last)
  seek
}

@StepsBuilder private var allMapped: [String] {
  host("madvise populate-write", pages: 260)
  for number: UInt64 in 0..<260 { load(pageAddress(number)) }
  host("madvise mergeable", pages: 260)
  hide(0x94)
  host("ksm")
  seek
  load(pages: 0, 1, 255, 256, 257, 259)
  host("madvise unmergeable", pages: 260)
  seek
  load(pages: 0, 1, 255, 256, 257, 259)
}

@StepsBuilder private var contents: [String] {
  host("madvise populate-write", pages: 560)
  for number: UInt64 in 0..<260 { host("write", pageAddress(2 * number), 0x77) }
  load(pages: 0, 1, 510, 511, 512, 513, 514, 515, 516, 518, 519, 520, 558, 559)
  hide(0x95)
  host("madvise mergeable", pages: 560)
  host("ksm")
  seek
  load(pages: 0, 1, 508, 509, 510, 511, 512, 513, 514, 515, 516, 518, 519, 520, 558, 559)
  host("write", target, 0x0)
  host("write", neighbour, 0x77)
  host("write", pageAddress(3), 0x77)
  load(pages: 0, 1, 3)
  hide(0x96)
  host("ksm")
  seek
  load(pages: 0, 1, 2, 3, 516, 518, 520, 559)
}

@StepsBuilder private var parted: [String] {
  host("madvise populate-write", pages: 700)
  host("madvise mergeable", pages: 520)
  host("ksm")
  load(pages: 0, 255, 256, 257, 511, 512, 513, 519, 520)
  for number: UInt64 in [3, 4, 5, 300, 301, 302, 515] { host("write", pageAddress(number), 0x0) }
  host("ksm")
  load(pages: 3, 4, 5, 300, 301, 302, 515)
  for number: UInt64 in [6, 7, 310, 311] { host("write", pageAddress(number), 0x1) }
  host("ksm")
  load(pages: 6, 7, 310, 311)
  for number: UInt64 in [6, 310, 517] { store(0x0, to: pageAddress(number)) }
  host("ksm")
  load(pages: 6, 7, 310, 311, 517)
  host("madvise dontneed", pages: 20, from: 10)
  host("madvise dontneed", pages: 30, from: 320)
  host("madvise mergeable", pages: 180, from: 520)
  host("ksm")
  load(pages: 0, 9, 10, 320, 512, 520, 539, 540, 541, 569, 570, 571, 699)
  host("madvise populate-write", pages: 20, from: 10)
  host("ksm")
  load(pages: 10, 11, 29)
}

@StepsBuilder private var twoAreas: [String] {
  host("madvise populate-write", pages: 1024)
  host("madvise mergeable", pages: 200, from: 512)
  host("madvise mergeable", pages: 200)
  host("ksm")
  load(pages: 0, 1, 199, 200, 512, 566, 567, 568, 569, 570, 711, 712)
  hide(0x97)
  host("madvise unmergeable", pages: 100)
  seek
  load(pages: 0, 99, 100, 199)
  host("ksm")
  load(pages: 0, 99, 100, 199, 711)
  host("madvise mergeable", pages: 300)
  host("ksm")
  load(pages: 0, 1, 99, 100, 199, 200, 299)
  hide(0x98)
  host("munmap", pages: 200, from: 512)
  seek
  host("ksm")
  load(pages: 0, 299)
  host("mmap", pages: 200, from: 512)
  host("madvise populate-write", pages: 200, from: 512)
  host("madvise mergeable", pages: 200, from: 512)
  host("ksm")
  load(pages: 0, 299, 512, 513, 711)
}

@StepsBuilder private var childOfEqualPages: [String] {
  host("madvise populate-write", pages: 300)
  host("madvise mergeable", pages: 300)
  load(pages: 0, 255, 256, 299)
  hide(0x99)
  host("fork")
  seek
  host("ksm")
  load(pages: 0, 1, 254, 255, 256, 257, 299)
  host("write", target, 0x0)
  host("write", pageAddress(257), 0x0)
  load(pages: 0, 257)
  hide(0x9a)
  host("ksm")
  seek
  load(pages: 0, 1, 257)
  host("end-fork")
  seek
  host("ksm")
  load(pages: 0, 1, 257)
  host("fork")
  host("ksm")
  load(pages: 0, 1, 255, 256, 257)
  host("madvise populate-write", pages: 300)
  load(pages: 0, 1, 255, 256, 257)
  host("ksm")
  load(pages: 0, 1, 255, 256, 257)
  hide(0x9b)
  host("end-fork")
  host("ksm")
  seek
  load(pages: 0, 1, 255, 256, 257)
}

@StepsBuilder private var childOfMergedPages: [String] {
  host("madvise populate-write", pages: 400)
  host("madvise mergeable", pages: 400)
  host("ksm")
  load(pages: 0, 255, 256, 399)
  host("fork")
  host("ksm")
  load(target)
  hide(0x9c)
  host("madvise populate-write", pages: 200)
  seek
  load(pages: 0, 199, 200, 399)
  host("ksm")
  seek
  load(pages: 0, 1, 2, 199, 200, 399)
  host("end-fork")
  host("ksm")
  load(pages: 0, 1, 2, 199, 200, 399)
  host("madvise populate-write", pages: 250, from: 100)
  host("ksm")
  load(pages: 0, 100, 101, 255, 256, 300, 349, 399)
}

@StepsBuilder private var orderOfScanning: [String] {
  host("madvise populate-write", pages: 4)
  for number: UInt64 in 0..<4 { host("write", pageAddress(number), number) }
  load(pages: 0, 1, 2, 3)
  host("madvise mergeable", pages: 4)
  host("fork")
  host("madvise unmergeable", pages: 4)
  host("ksm")
  for number: UInt64 in 0..<3 { host("write", pageAddress(number), 0x3) }
  load(pages: 0, 1, 2, 3)
  host("madvise mergeable", pages: 4)
  hide(0x9d)
  host("ksm")
  seek
  load(pages: 0, 1, 2, 3)
  host("end-fork")
  host("write", target, 0x3)
  host("ksm")
  load(pages: 0, 1, 2, 3)
}

@StepsBuilder private var wipedChild: [String] {
  host("madvise populate-write", pages: 4)
  host("madvise mergeable", pages: 4)
  host("madvise wipeonfork", pages: 4)
  host("fork")
  host("ksm")
  load(pages: 0, 1, 3)
  host("madvise unmergeable", pages: 4)
  host("ksm")
  host("end-fork")
  host("ksm")
}

@StepsBuilder private var pagesOfBlocks: [String] {
  host("madvise populate-write", pages: 600)
  load(pages: 0, 1, 511, 512, 599)
  hide(0x9e)
  host("madvise mergeable", pages: 600)
  seek
  host("ksm")
  load(pages: 0, 1, 2, 255, 256, 257, 258, 511, 512, 513, 514, 515, 599)
  hide(0x9f)
  host("write", target, 0x0)
  host("write", pageAddress(300), 0x0)
  seek
  host("ksm")
  load(pages: 0, 1, 300, 301)
}

@StepsBuilder private var untouched: [String] {
  host("madvise mergeable", pages: 600)
  host("madvise populate-read", pages: 300)
  load(pages: 0, 1)
  hide(0xa1)
  host("ksm")
  seek
  load(pages: 0, 1, 299)
  host("madvise populate-write", pages: 2)
  host("ksm")
  load(pages: 0, 1, 2, 299)
  host("madvise populate-write", pages: 300)
  host("ksm")
  load(pages: 0, 1, 2, 255, 256, 257, 299)
  host("madvise dontneed", pages: 256)
  host("ksm")
  load(pages: 0, 256, 257)
  host("madvise populate-write", pages: 256)
  host("ksm")
  load(pages: 0, 1, 212, 213, 214, 215, 255, 256, 257, 299)
}

@StepsBuilder private var pagesOf16K: [String] {
  host("madvise populate-write", pages: 1200)
  host("madvise mergeable", pages: 1200)
  load(target)
  load(0x403f_c000)
  load(0x4040_0000)
  hide(0xa2)
  host("ksm")
  seek
  for address: UInt64 in [
    target, 0x4000_4000, 0x403f_c000, 0x4040_0000, 0x4040_4000, 0x404a_c000,
  ] { load(address) }
}
