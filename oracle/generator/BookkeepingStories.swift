import Scenarios
import Stage2Sim

/// Stories that depend on the host's own bookkeeping: the page cache, areas, references of pages.
func bookkeepingStories() -> [ScenarioFile] {
  func story(
    _ name: String, _ purpose: String, _ backing: Backing, _ steps: [String]
  ) -> ScenarioFile {
    ScenarioFile(
      "host-a76-\(backing.rawValue)-\(name)", purpose, on: MachineDescription(.cortexA76, backing),
      steps: steps
    )
  }
  let faultAround = [Backing.memfd, .file].map {
    story(
      "fault-around",
      "A fault maps what the page cache has nearby, but not what is to be reclaimed.", $0,
      faultAroundSteps)
  }
  return faultAround + [
    story(
      "areas", "Areas of hugetlb pages that were one are not one again: fork notifies of each.",
      .hugetlb, partedAreas),
    story(
      "merge-child", "KSM merges pages of the VMM with such as only its child has.", .anonymous,
      mergeWithChild),
    story(
      "merge-clean",
      "populate-write marks the page, not its entry, so KSM leaves a clean entry as it is.",
      .anonymous, mergeOfCleanEntry),
    story(
      "collapse-child",
      "The page cache becomes a huge page, of which a child maps a page: the copy here is unmapped from the guest.",
      .file, collapseWithChild),
    story(
      "held",
      "A page that waits to be called active is held, so a store to it copies it where it need not.",
      .anonymous, heldPage),
  ]
}

@StepsBuilder private var faultAroundSteps: [String] {
  store(target)
  host("read", neighbour)
  store(pageAddress(2))
  hide(0x91)
  host("madvise dontneed", pages: 3)
  load(target)
  host("age", neighbour)
  load(neighbour)
  host("madvise dontneed", pages: 3)
  host("age", target + 2 * block)
  load(target)
  host("age", neighbour)
  host("age", pageAddress(2))
  hide(0x92)
  store(neighbour)
  host("madvise dontneed", pages: 3)
  load(target)
  host("age", neighbour)
  seek
}

@StepsBuilder private var partedAreas: [String] {
  store(target)
  store(nextBlock)
  hide(0x93)
  host("mprotect ro", target, block)
  seek
  load(target)
  hide(0x94)
  host("mprotect rw", target, 3 * block)
  seek
  load(target)
  store(nextBlock)
  host("madvise dontneed", target, block)
  host("fork")
  seek
  store(nextBlock)
  host("end-fork")
  store(target)
  seek
}

@StepsBuilder private var mergeWithChild: [String] {
  host("madvise mergeable", pages: 3)
  host("write", target, 0x77)
  host("write", neighbour, 0x78)
  load(neighbour)
  host("fork")
  host("write", target, 0x78)
  load(target)
  hide(0x97)
  host("ksm")
  seek
  load(target)
  load(neighbour)
  hide(0x98)
  host("write", target, 0x77)
  load(target)
  hide(0x99)
  host("ksm")
  seek
  load(target)
  host("end-fork")
  hide(0x9a)
  store(target)
  seek
}

@StepsBuilder private var mergeOfCleanEntry: [String] {
  host("madvise populate-write", pages: 3)
  host("madvise free", neighbour, page)
  host("madvise populate-write", pages: 3)
  load(target)
  hide(0x9b)
  host("fork")
  seek
  host("madvise mergeable", pages: 3)
  host("ksm")
  seek
  load(neighbour)
  load(target)
  seek
  host("end-fork")
  store(neighbour)
  seek
}

@StepsBuilder private var collapseWithChild: [String] {
  load(target)
  store(neighbour)
  host("fork")
  store(target)
  hide(0x9c)
  host("madvise collapse", target, block)
  seek
  load(target)
  load(pageAddress(2))
  hide(0x9d)
  host("end-fork")
  seek
}

@StepsBuilder private var heldPage: [String] {
  host("write", target, leave)
  host("write", neighbour, 0x1)
  host("age", pageAddress(3))
  host("fork")
  host("end-fork")
  load(target)
  hide(0x95)
  load(neighbour)
  store(neighbour)
  store(target)
  seek
  host("fork")
  host("end-fork")
  load(target)
  hide(0x96)
  store(target)
  seek
}
