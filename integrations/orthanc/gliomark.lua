-- Sends stable studies from Orthanc to gliomark's DICOM node.
--
-- Only MR series are sent, never gliomark's own results (their Manufacturer is "gliomark"). A study is sent again only
-- if its MR images have changed since: results that come back make the study stable again, but are no reason to send.
--
-- orthanc.json:
--   "LuaScripts": ["/etc/orthanc/gliomark.lua"],
--   "DicomModalities": { "gliomark": ["GLIOMARK", "gliomark-server", 11112] }

local MODALITY = 'gliomark' -- name in DicomModalities
local MANUFACTURER = 'gliomark' -- of gliomark's results
local SENT_METADATA = '4711' -- user-defined metadata of a study: which MR images were sent


local function getJson(path)
   return ParseJson(RestApiGet(path))
end


-- Returns a checksum; Orthanc's Lua has none of its own.
local function computeChecksum(text)
   local checksum = 0
   for at = 1, #text do
      checksum = (checksum * 31 + string.byte(text, at)) % 4294967296
   end
   return string.format('%.0f', checksum)
end


-- Returns the ids of the MR series of a study, and a checksum that changes when an image is added or removed.
local function listMRSeries(studyId)
   local ids, signature = {}, {}
   for _, series in ipairs(getJson('/studies/' .. studyId .. '/series')) do
      local tags = series['MainDicomTags']
      local manufacturer = string.lower(tags['Manufacturer'] or '')
      if tags['Modality'] == 'MR' and manufacturer ~= MANUFACTURER then
         table.insert(ids, series['ID'])
         local images = series['Instances']
         table.sort(images)
         table.insert(signature, series['ID'] .. ':' .. table.concat(images, ','))
      end
   end
   table.sort(signature)
   return ids, computeChecksum(table.concat(signature, ';'))
end


local function readSentSignature(studyId)
   for name, value in pairs(getJson('/studies/' .. studyId .. '/metadata?expand')) do
      if name == SENT_METADATA then
         return value
      end
   end
   return ''
end


function OnStableStudy(studyId, tags, metadata)
   local series, signature = listMRSeries(studyId)
   if #series == 0 or signature == readSentSignature(studyId) then
      return
   end
   local request = { Resources = series, Asynchronous = true }
   RestApiPost('/modalities/' .. MODALITY .. '/store', DumpJson(request, true))
   RestApiPut('/studies/' .. studyId .. '/metadata/' .. SENT_METADATA, signature)
   print('gliomark: sending ' .. #series .. ' MR series of study ' .. studyId)
end


-- A study that could not be sent is forgotten, so that it is sent when it is stable the next time.
function OnJobFailure(jobId)
   local job = getJson('/jobs/' .. jobId)
   local content = job['Content'] or {}
   local node = getJson('/modalities?expand')[MODALITY] or {}
   if job['Type'] ~= 'DicomModalityStore' or content['RemoteAet'] ~= node['AET'] then
      return
   end
   local studies = {}
   for _, seriesId in ipairs(content['ParentResources'] or {}) do
      studies[getJson('/series/' .. seriesId)['ParentStudy']] = true
   end
   for studyId, _ in pairs(studies) do
      RestApiDelete('/studies/' .. studyId .. '/metadata/' .. SENT_METADATA)
      print('gliomark: study ' .. studyId .. ' could not be sent; resubmit job ' .. jobId)
   end
end
