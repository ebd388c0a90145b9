-- Pandoc filter for both editions: builds figures and tables from the notebook's own descriptions of them, cites the
-- bibliography, and hands typst what pandoc's typst writer would lose (alt text, wide tables, labels).

local for_pdf = FORMAT == "typst"
local dialect = { format = "markdown", extensions = PANDOC_READER_OPTIONS.extensions }

local function typst_string(text)
  return '"' .. text:gsub("\\", "\\\\"):gsub('"', '\\"'):gsub("\n", "\\n") .. '"'
end

local function typst_array(items)
  return "(" .. table.concat(items, ", ") .. (#items > 0 and "," or "") .. ")"
end

-- What typst would replace, and pandoc's writer does not escape: "..." by an ellipsis, "-1" by a minus sign, "-?" by a
-- soft hyphen.
local exact = {
  Link = function(link) return link, false end,
  Str = function(str)
    if (" " .. str.text):find("[^%w]%-%d") or str.text:find("...", 1, true) or str.text:find("-?", 1, true) then
      return pandoc.RawInline("typst", "#" .. typst_string(str.text) .. ";")
    end
  end,
  traverse = "topdown",
}

local function typst_of(blocks)
  return (pandoc.write(pandoc.Pandoc(blocks):walk(exact), "typst"):gsub("%s+$", ""))
end

local function typst_block(text)
  return pandoc.RawBlock("typst", text)
end

-- Blocks between an opening and a closing piece of typst.
local function enclosed(opening, blocks, closing)
  local all = pandoc.Blocks { typst_block(opening) }
  all:extend(blocks)
  all:insert(typst_block(closing))
  return all
end

local function enclosed_inlines(opening, inline, closing)
  return pandoc.Inlines { pandoc.RawInline("typst", opening), inline, pandoc.RawInline("typst", closing) }
end

local function label_of(identifier)
  return identifier ~= "" and (" #label(" .. typst_string(identifier) .. ")") or ""
end

local function inlines_of_markdown(text)
  return pandoc.utils.blocks_to_inlines(pandoc.read(text, dialect).blocks)
end

local function figure_of(description)
  local spec = pandoc.json.decode(description)
  local caption = pandoc.Inlines { pandoc.Strong { pandoc.Str(spec.number .. ".") }, pandoc.Space() }
  caption:extend(inlines_of_markdown(spec.caption))
  -- Attributes as lists of pairs: Lua gives the fields of a table in another order every time.
  local attributes = { { "alt", spec.alt } }
  if type(spec.width) == "number" then -- absent, it is JSON's null
    table.insert(attributes, { "width", math.floor(spec.width) .. "px" })
  end
  local image = pandoc.Image({}, spec.source, "", pandoc.Attr("", {}, attributes))
  return pandoc.Figure({ pandoc.Plain { image } }, { pandoc.Plain(caption) }, pandoc.Attr(spec.identifier))
end

-- A table of `rendering.table`: its caption, after the number, and its note are Markdown that HTML carries as text, and a
-- number stays on one line, but for a score and its interval, each of which may have its own.
local finish_table = {
  Table = function(grid)
    local caption = pandoc.utils.blocks_to_inlines(grid.caption.long)
    if caption[1] and caption[1].t == "Strong" then
      local number = caption:remove(1)
      caption = inlines_of_markdown(pandoc.utils.stringify(caption))
      caption:insert(1, pandoc.Space())
      caption:insert(1, number)
      grid.caption.long = { pandoc.Plain(caption) }
    end
    for _, body in ipairs(grid.bodies) do
      for _, row in ipairs(body.body) do
        for _, cell in ipairs(row.cells) do
          if cell.classes:includes("num") then
            local text = pandoc.utils.stringify(cell.contents):gsub(" ", "\u{a0}"):gsub("\u{a0}%[", " [")
            cell.contents = { pandoc.Plain { pandoc.Str(text) } }
          end
        end
      end
    end
    return grid
  end,
  RawInline = function() return {} end, -- the style of a table of pandas
  Div = function(div)
    if div.classes:includes("note") then
      div.content = pandoc.read(pandoc.utils.stringify(div), dialect).blocks
      return div
    end
  end,
}

local function expand_html(text)
  if text:find("<table", 1, true) then
    return pandoc.Blocks(pandoc.read(text, "html").blocks):walk(finish_table)
  end
  if not for_pdf then
    return nil
  end
  if text:find("<audio", 1, true) then
    local label = text:match('<figure class="recording"><figcaption>([^<]*)</figcaption>')
    local what = label and "Recording (" .. pandoc.utils.stringify(pandoc.read(label, "html")) .. ")" or "Recording"
    local remark = pandoc.Para { pandoc.Emph { pandoc.Str(what .. ": played in the HTML edition.") } }
    return pandoc.Div({ remark }, pandoc.Attr("", { "recording" }))
  end
  return pandoc.read(text, "html").blocks
end

local expand = {
  CodeBlock = function(block)
    if block.classes:includes("figure-block") then
      return figure_of(block.text)
    end
  end,
  -- <a id="..."></a> is the usual way to set an anchor in a notebook; typst needs it as a label.
  RawInline = function(inline)
    local identifier = inline.format == "html" and inline.text:match("^<a id=[\"']([^\"']*)[\"']>$")
    if for_pdf and identifier then
      return pandoc.Span({}, pandoc.Attr(identifier))
    end
  end,
  RawBlock = function(block)
    if block.format == "html" then
      return expand_html(block.text)
    end
  end,
}

-- The heading that opens the notebook is the title; the PDF counts its headings below the title.
local function with_title(document)
  local first = document.blocks[1]
  if first and first.t == "Header" and first.level == 1 then
    document.meta.title = pandoc.MetaInlines(first.content)
    document.blocks:remove(1)
  end
  return document:walk {
    Header = function(heading)
      heading.level = math.max(heading.level, 2) - (for_pdf and 1 or 0)
      return heading
    end,
  }
end

-- Citations as plain text that links to the list of references, which comes last.
local function with_references(document)
  document.meta["link-citations"] = true
  return pandoc.utils.citeproc(document):walk {
    Cite = function(cite) return cite.content end,
  }
end

local function is_callout(quote)
  local first = quote.content[1]
  return first and first.t == "Para" and first.content[1].t == "Strong"
    and pandoc.utils.stringify(first.content[1]):match("%.$")
end

local function callout(quote)
  if not is_callout(quote) then
    return nil
  end
  if for_pdf then
    return enclosed("#callout[", quote.content, "]")
  end
  return pandoc.Div(quote.content, pandoc.Attr("", { "callout" }, { { "role", "note" } }))
end

local in_html = {
  BlockQuote = callout,
  Table = function(grid)
    local number = pandoc.utils.blocks_to_inlines(grid.caption.long)[1]
    local label = number and pandoc.utils.stringify(number):gsub("%.$", "") or "Table"
    local wrapper = { { "role", "region" }, { "tabindex", "0" }, { "aria-label", label } }
    return pandoc.Div({ grid }, pandoc.Attr("", { "table" }, wrapper))
  end,
}

-- pandoc's writer gives equations no alternative text, which PDF/UA asks for: their TeX source serves.
local function equation(math)
  local body = pandoc.write(pandoc.Pandoc { pandoc.Plain { math } }, "typst"):gsub("%s+$", "")
  local display = math.mathtype == "DisplayMath"
  local call = "#math.equation(block: %s, alt: %s, %s);"
  return pandoc.RawInline("typst", call:format(display, typst_string(math.text), body))
end

local function image_call(image)
  local alt = image.attributes.alt or pandoc.utils.stringify(image.caption)
  local pixels = tonumber((image.attributes.width or ""):match("^%d+"))
  local path = image.src:gsub("%%(%x%x)", function(code) return string.char(tonumber(code, 16)) end)
  return ("report-image(%s, alt: %s, width: %s)"):format(
    typst_string(path), typst_string(alt), pixels and pixels * 0.75 .. "pt" or "none")
end

local function figure(block)
  local image
  block:walk { Image = function(found) image = found end }
  if image then
    local caption = typst_of { pandoc.Plain(pandoc.utils.blocks_to_inlines(block.caption.long)) }
    local call = "#figure(%s, kind: image, placement: %s, caption: [%s])%s"
    return typst_block(call:format(image_call(image), block.attributes.placement, caption, label_of(block.identifier)))
  end
end

local function is_number(cell)
  return cell.classes:includes("num") or cell.alignment == "AlignRight"
end

-- Rows are handed over as cells; `report-table` finds the widths from each column's longest cell and longest word.
local function table_call(grid)
  local columns = #grid.colspecs
  local lines, words, aligns = {}, {}, {}
  local function longer(known, text)
    return utf8.len(text) > utf8.len(known) and text or known
  end
  for column = 1, columns do
    lines[column], words[column] = "", ""
    aligns[column] = grid.colspecs[column][1] == "AlignRight" and "right" or "left"
  end

  local function cells_of(row, heading)
    local written, column = {}, 1
    for _, cell in ipairs(row.cells) do
      if cell.col_span == 1 and column <= columns then
        local text = pandoc.utils.stringify(pandoc.Blocks(cell.contents))
        lines[column] = longer(lines[column], text)
        for word in text:gsub("\u{200b}", " "):gmatch("%S+") do
          words[column] = longer(words[column], word)
        end
        if is_number(cell) then
          aligns[column] = "right"
        end
      end
      local content = typst_of(cell.contents)
      if heading then
        content = "#strong[" .. content .. "]"
      end
      table.insert(written, ("table.cell(colspan: %d, rowspan: %d)[%s]"):format(
        cell.col_span, cell.row_span, content))
      column = column + cell.col_span
    end
    return table.concat(written, ", ")
  end

  local head, body = {}, {}
  for _, row in ipairs(grid.head.rows) do
    table.insert(head, cells_of(row, true))
  end
  for _, part in ipairs(grid.bodies) do
    for _, row in ipairs(part.head) do
      table.insert(body, cells_of(row, true))
    end
    for _, row in ipairs(part.body) do
      table.insert(body, cells_of(row, false))
    end
  end
  for column = 1, columns do
    lines[column], words[column] = typst_string(lines[column]), typst_string(words[column])
  end
  local call = "report-table(columns: %d, align: %s, lines: %s, words: %s, header: %s, body: %s)"
  return call:format(
    columns, typst_array(aligns), typst_array(lines), typst_array(words), typst_array(head), typst_array(body))
end

local function typst_table(grid)
  local caption = typst_of { pandoc.Plain(pandoc.utils.blocks_to_inlines(grid.caption.long)) }
  local call = table_call(grid)
  if caption == "" then
    return typst_block("#" .. call)
  end
  return typst_block(("#figure(%s, kind: table, caption: [%s])%s"):format(call, caption, label_of(grid.identifier)))
end

-- Figures go to the top or the foot of a page, so that none leaves half a page empty: those of the opening, whose text is
-- read first, to the foot. A figure that belongs to a recording stays in its place.
local function with_placements(document)
  local opening = true
  for position, block in ipairs(document.blocks) do
    local before = document.blocks[position - 1]
    local with_recording = before and before.t == "Div" and before.classes:includes("recording")
    opening = opening and block.t ~= "Header"
    if block.t == "Figure" then
      block.attributes.placement = with_recording and "none" or opening and "bottom" or "auto"
    end
  end
  return document
end

local in_pdf = {
  { Math = equation },
  {
    BlockQuote = callout,
    Figure = figure,
    Image = function(image) return pandoc.RawInline("typst", "#" .. image_call(image) .. ";") end,
    Table = typst_table,
    CodeBlock = function(block)
      if block.classes:includes("printed") then
        return typst_block("#printed(" .. typst_string(block.text) .. ")")
      end
    end,
    Div = function(div)
      if div.classes:includes("note") then
        return enclosed("#table-note[", div.content, "]")
      end
      if div.classes:includes("recording") then
        return enclosed("#block(sticky: true)[", div.content, "]")
      end
    end,
    traverse = "topdown",
  },
}

-- The text of a corpus has dollars and backslashes in spans without attributes, which keep Jupyter from finding math.
local unmarked = {
  Span = function(span)
    local text = pandoc.utils.stringify(span)
    if span.attr == pandoc.Attr() and (text == "$" or text == "\\") then
      return span.content
    end
  end,
}

-- A word longer than this may be broken in the PDF, after each of so many characters.
local longest_word, piece = 40, 20

local function breakable(text)
  return (text:gsub("%S+", function(word)
    if (utf8.len(word) or 0) <= longest_word then
      return word
    end
    local pieces = {}
    for at = 0, utf8.len(word) - 1, piece do
      local last = utf8.offset(word, piece + 1, utf8.offset(word, at + 1)) or #word + 1
      table.insert(pieces, word:sub(utf8.offset(word, at + 1), last - 1))
    end
    return table.concat(pieces, "\u{200b}")
  end))
end

local broken_words = {
  Code = function(code)
    code.text = breakable(code.text)
    return code
  end,
  CodeBlock = function(block)
    block.text = breakable(block.text)
    return block
  end,
  -- Typst breaks addresses itself.
  Link = function(link) return link, false end,
  Str = function(str)
    local text = breakable(str.text)
    if text ~= str.text then -- a hyphen would look like a part of the name
      return enclosed_inlines("#text(hyphenate: false)[", pandoc.Str(text), "];"), false
    end
  end,
  traverse = "topdown",
}

function Pandoc(document)
  document = with_references(with_title(document:walk(expand))):walk(unmarked)
  if not for_pdf then
    return document:walk(in_html)
  end
  document = with_placements(document:walk(broken_words))
  for _, pass in ipairs(in_pdf) do
    document = document:walk(pass)
  end
  return document:walk(exact)
end
