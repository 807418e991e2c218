import Scenarios
import Stage2Sim

// Stories in which the guest acts between actions of the host.

/// All stories on one CPU model and one backing.
func hostStories(_ cpu: CPUModel, _ backing: Backing) -> [ScenarioFile] {
  let machine = MachineDescription(cpu, backing)
  func story(_ name: String, _ purpose: String, _ steps: [String]) -> ScenarioFile {
    ScenarioFile(
      "host-\(cpu.shortName)-\(backing.rawValue)-\(name)", purpose, on: machine, steps: steps)
  }
  var stories = [
    story(
      "dirty-pages",
      "Dirty logging with stores in between: what is written is found, and the byte?", dirtyPages),
    story(
      "ageing", "A page is made old, and is made young by an access, a store and a fetch.", ageing),
    story(
      "zero", "The guest only reads, where nobody has written; then it writes, or the host does.",
      zeroPages),
    story(
      "copy-on-write", "A child shares the pages; who writes first gets another one.", copyOnWrite),
    story(
      "invalid-entry",
      "A byte in an entry that maps nothing; it is counted, and gives back what it did not take.",
      invalidEntry),
    story("invalid-block", "A byte in an entry of level 2 that maps nothing.", invalidBlock),
    story(
      "nothing-mapped",
      "A byte where no table is yet. Once: a second time would free the first table in use.",
      nothingMapped),
    story("nothing-unmapped", "A byte where no table is yet, and an unmapping.", nothingUnmapped),
    story("slots", "The slot goes, moves, and comes back for reading only.", slots),
    story(
      "protection",
      "What the guest can do while the VMM may not read or write, or has nothing mapped.",
      protection),
  ]
  stories += [DirtyLogProtection.manual, .initiallySet].map { log in
    var machine = machine
    machine.configuration.dirtyLogProtection = log
    return ScenarioFile(
      "host-\(cpu.shortName)-\(backing.rawValue)-dirty-\(log.rawValue)",
      "Dirty logging that the VMM clears by itself, range by range; \(log.rawValue).",
      on: machine, steps: clearedDirtyLog)
  }
  if backing.hasMergeablePages {
    stories.append(
      story(
        "merge", "Equal pages become one, are parted by a store, and by taking them out.", merge))
  }
  return stories
}

@StepsBuilder private var dirtyPages: [String] {
  store(target)
  store(neighbour)
  store(nextBlock)
  hide(0x6b)
  host("dirty-log on")
  seek
  store(target)
  seek
  host("dirty-log get")
  load(target)
  seek
  host("dirty-log get")
  store(neighbour)
  guest("stp x0,x2,[A]", at: neighbour + 8)
  host("dirty-log get")
  hide(0xf2)
  store(target)
  seek
  store(pageAddress(3))
  host("dirty-log get")
  seek
  host("dirty-log off")
  seek
  store(target)
  store(nextBlock)
  fetch(target)
  seek
  host("dirty-log get")
}

@StepsBuilder private var clearedDirtyLog: [String] {
  store(target)
  store(nextBlock)
  hide(0x6b)
  host("dirty-log on")
  seek
  host("dirty-log get")
  store(target)
  seek
  host("dirty-log get")
  host("dirty-log clear", pages: 64)
  seek
  host("dirty-log get")
  store(target)
  seek
  store(neighbour)
  hide(0x9d)
  host("dirty-log clear", target, block)
  seek
  host("dirty-log get")
  fetch(target)
  seek
  host("dirty-log off")
  store(target)
  seek
}

@StepsBuilder private var ageing: [String] {
  store(target)
  host("age", target)
  load(target)
  hide(0x93)
  host("age", target)
  seek
  load(target)
  seek
  host("age", target)
  store(target)
  seek
  host("age", target)
  fetch(target)
  seek
  hide(0x3a)
  host("age", target)
  host("age", target)
  hide(0xc5)
  fetch(target)
  seek
  host("age", pageAddress(3))
  host("madvise dontneed", target, block)
  host("age", target)
  seek
}

@StepsBuilder private var zeroPages: [String] {
  load(target)
  hide(0x71)
  load(neighbour)
  load(nextBlock)
  seek
  store(target)
  seek
  hide(0x72)
  host("write", neighbour, leave)
  load(neighbour)
  fetch(neighbour)
  seek
  fetch(nextBlock)
  store(nextBlock)
  seek
}

@StepsBuilder private var copyOnWrite: [String] {
  store(target)
  store(neighbour)
  hide(0x81)
  host("fork")
  seek
  load(target)
  hide(0x82)
  load(neighbour)
  seek
  store(target)
  seek
  hide(0x83)
  host("write", neighbour, 0x1)
  load(neighbour)
  seek
  host("end-fork")
  seek
  store(target)
  store(neighbour)
  seek
  host("fork")
  fetch(target)
  hide(0x84)
  host("end-fork")
  store(target)
  seek
}

@StepsBuilder private var invalidEntry: [String] {
  load(neighbour)
  store(neighbour)
  store(pageAddress(2))
  store(nextBlock)
  host("madvise dontneed", target, page)
  hide(0x66)
  seek
  load(target)
  seek
  host("madvise dontneed", target, page)
  hide(0x67)
  host("madvise dontneed", target, page)
  seek
  load(neighbour)
  store(pageAddress(2))
  hide(0x68)
  store(target)
  seek
  // The host unmaps one page at a time. If it unmapped more at once, it would free the table and continue to use it.
  host("madvise dontneed", neighbour, page)
  seek
  load(neighbour)
  store(pageAddress(2))
  store(nextBlock)
}

@StepsBuilder private var invalidBlock: [String] {
  store(nextBlock)
  store(target + 2 * block)
  store(target + 3 * block)
  hide(0x69)
  seek
  load(target)
  seek
  host("madvise dontneed", target, block)
  hide(0x6a)
  seek
  host("madvise dontneed", target, block)
  seek
  hide(literal: "0")
  store(target)
  seek
  load(nextBlock)
  store(target + 2 * block)
}

@StepsBuilder private var nothingMapped: [String] {
  hide(0x6c)
  seek
  store(target)
  seek
  store(nextBlock)
}

@StepsBuilder private var nothingUnmapped: [String] {
  seek
  hide(0x6d)
  seek
  host("slot delete")
  seek
  load(target)
  host("slot add")
  seek
  store(target)
  seek
}

@StepsBuilder private var slots: [String] {
  store(target)
  store(target + 2 * block)
  hide(0x2e)
  host("slot delete")
  load(target)
  store(target)
  fetch(target)
  seek
  host("slot add-readonly")
  load(target)
  hide(0x2f)
  store(target)
  fetch(target)
  seek
  host("write", target, 0x55)
  load(target)
  seek
  host("slot add")
  host("slot delete")
  host("slot add")
  store(target)
  seek
  hide(0x1e)
  host("slot move", nextBlock)
  load(target)
  seek
  load(nextBlock)
  load(target + 2 * block)
  store(target + 2 * block)
  host("slot move", target)
  load(target)
  store(target)
  seek
}

@StepsBuilder private var protection: [String] {
  store(target)
  store(neighbour)
  store(nextBlock)
  for size in [page, block] {
    hide(0x1f)
    host("mprotect ro", target, size)
    load(target)
    hide(0x2f)
    store(target)
    fetch(target)
    seek
    load(neighbour)
    host("mprotect none", target, size)
    load(target)
    store(target)
    fetch(target)
    seek
    host("write", target, 0x1)
    host("read", target)
    host("mprotect rw", target, size)
    store(target)
    load(neighbour)
    hide(0x3f)
    host("munmap", target, size)
    load(target)
    store(target)
    seek
    host("mmap", target, size)
    load(target)
    seek
    store(target)
    seek
  }
}

@StepsBuilder private var merge: [String] {
  host("madvise mergeable", pages: 4)
  for number: UInt64 in 0..<4 {
    host("write", pageAddress(number), 0x77)
    load(pageAddress(number))
  }
  hide(0x91)
  host("ksm")
  seek
  load(pages: 0, 1, 2)
  hide(0x92)
  store(0x77, to: neighbour)
  load(neighbour)
  seek
  store(0x77, to: target)
  seek
  hide(0x93)
  host("ksm")
  seek
  load(target)
  hide(0x94)
  host("madvise unmergeable", pages: 4)
  load(target)
  load(neighbour)
  seek
  store(target)
  seek
}
